"""Where points run: which of them together, on a Ray cluster, as Slurm jobs."""
