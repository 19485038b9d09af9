"""Image files: opened, checked, and decoded onto a canvas of a fixed size."""
