"""The torch code of the layers, and what it finds out about networks. Imported only when a section builds."""
