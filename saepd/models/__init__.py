"""The language model and its text: loading, tokens and prompts, positions, sites."""
