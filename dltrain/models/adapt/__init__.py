"""Changing the parts of a finished network: what a probing forward finds out, and what is exchanged by it."""
