"""The run directory: checkpoints, metrics, events and what they hold, written whole and checked when read."""
