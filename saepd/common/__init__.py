"""What every room uses: the one exception, files written whole, messages, experiment tracking."""
