"""The lm-evaluation-harness: base, every perspective and their merge as models of it."""
