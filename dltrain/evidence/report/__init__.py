"""The page of a run: `report.html`. What stands on it is gathered by `commands.report`.

story -> sections, each a list of blocks (figures, tables, examples) -> one file
"""
