"""Dictionaries: load and check them, train them, measure them."""
