"""What came out of a sweep: the store, frames, pictures."""
