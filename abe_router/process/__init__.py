"""Processes: a worker, the supervisor with its worker slots, and the control channel between them."""
