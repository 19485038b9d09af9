"""Tables: files of rows and columns, as numbers for a network."""
