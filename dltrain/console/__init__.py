"""What a person sees, and the one way there."""
