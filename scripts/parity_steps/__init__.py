"""What `scripts/parity.py` does in each runtime."""
