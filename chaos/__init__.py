"""Injects faults into a running abe-router and counts lost and duplicated messages: `python -m chaos -h`."""
