"""From an experiment to a training: build, the trainer's loop, and what both are made of. Imports torch."""
