"""Directions in other tools' formats, both ways, and what each format cannot say."""
