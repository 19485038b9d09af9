"""Which part of an image speaks for an answer: the layer to ask, its map, and what hiding a region of it changes."""
