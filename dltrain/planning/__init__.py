"""`plan`: what a training will do and cost, found without training, and warnings about it."""
