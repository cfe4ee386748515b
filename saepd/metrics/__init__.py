"""Pure maths on predictions: distances, labels, calibration, selective answers, intervals."""
