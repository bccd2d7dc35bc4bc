"""Edits of the routes file, and how they take effect."""
