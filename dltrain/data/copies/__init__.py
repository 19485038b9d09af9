"""Copies among the examples of a data set, found by what examples hold."""
