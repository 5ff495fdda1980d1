"""What a run looked like: its logs as numbers, its figures as PNG bytes, and one HTML page that needs nothing else."""
