"""The root section of a YAML file, what holds between its sections, and plug-ins."""
