"""Hyperparameter search: the settings that are tried, the study that keeps them, and the loop over trials."""
