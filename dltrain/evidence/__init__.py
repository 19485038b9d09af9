"""What a measured split says, example by example, and whether it is more than chance."""
