"""Folders of files: what lies in them, which folders are splits and which are classes. Opens nothing."""
