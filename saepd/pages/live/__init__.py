"""The live page: a server on this machine alone, and what it is asked."""
