"""What is written where: a direction, the edits it makes, and how it is kept on disk."""
