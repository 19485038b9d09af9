"""The torch code of the optimizers that are written here, in files of the same names. Imported only when they build."""
