"""What uncertainty is worth on a task: calibration, usefulness, triage against random order."""
