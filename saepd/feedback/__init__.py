"""What people said: the schema of items and feedback, the files they come in, samples, splits."""
