"""Measures abe-router side by side with a hand-written loop and with its peers: `python -m bench --help`."""
