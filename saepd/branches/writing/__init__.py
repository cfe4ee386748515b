"""Text from branches: how tokens are drawn, written, and traced."""
