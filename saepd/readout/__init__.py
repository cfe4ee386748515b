"""From branches to probabilities of options: scores, temperatures, position biases."""
