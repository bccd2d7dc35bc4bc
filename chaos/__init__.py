"""Breaks abe-router in every way we know, and counts what is lost and doubled: `python -m chaos --help`."""
