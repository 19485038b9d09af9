"""What a measured split says, example by example; whether it is more than chance; figures, and pages of them."""
