"""What people look at: pictures, and the report of a folder as one page."""
