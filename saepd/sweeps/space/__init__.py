"""What a sweep varies: its file, its parameters, its points and what they will cost."""
