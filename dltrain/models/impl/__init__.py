"""The networks themselves, as torch modules. Imported only when a section builds."""
