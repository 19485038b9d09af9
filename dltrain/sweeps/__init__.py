"""Running a search: its trials, the record that keeps them, and the loop over them."""
