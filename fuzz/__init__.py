"""Runs abe-router on random and damaged input and checks properties that must hold: `python -m fuzz -h`."""
