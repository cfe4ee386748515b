"""The base model and K steered runs in one pass, and what can be read from them."""
