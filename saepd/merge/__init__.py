"""Pure maths on log-probs: one distribution from base and branches, and how far they disagree."""
