"""The options of a routes file and their values."""
