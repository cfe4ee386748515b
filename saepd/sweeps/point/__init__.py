"""One point of a sweep: what it asks, its stages, what is measured."""
