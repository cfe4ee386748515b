"""Damaged and hostile files for every reader: what they are made of, and what must not happen."""
