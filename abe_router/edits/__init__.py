"""Edits of the routes file and how they come into force."""
