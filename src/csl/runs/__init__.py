"""A run: its folder, its settings, the record of what made it."""
