"""Findings about a file that is valid: what is likely a mistake."""
