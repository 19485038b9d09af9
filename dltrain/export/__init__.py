"""Taking a trained network away: one file with its preprocessing, that other programs run."""
