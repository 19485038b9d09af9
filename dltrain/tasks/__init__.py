"""What learning is for: losses and metrics."""
