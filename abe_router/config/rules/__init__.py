"""Warnings about a valid file: what is probably a mistake."""
