"""From feedback to directions: what is written, how much, and what it is compared with."""
