"""The methods that are compared, each from a fold to predictions."""
