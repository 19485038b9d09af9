"""The torch code of the losses. Imported only when a section builds."""
