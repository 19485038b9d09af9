"""What a run's files are called and say, for those that only look at them."""

JOURNAL = "journal.log"
"""The file that makes a directory that of a sweep."""
STATES = ("running", "finished", "interrupted", "failed")
