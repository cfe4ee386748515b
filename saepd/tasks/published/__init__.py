"""Published disagreement, read from its sources' own files."""
