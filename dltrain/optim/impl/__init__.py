"""The torch code of averages, penalties, wrappers and groups. Imported only when a section builds."""
