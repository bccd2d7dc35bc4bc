"""Processes: a worker, the supervisor, and the control channel between them."""
