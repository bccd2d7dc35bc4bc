"""Renders operations over HTTP: the API under `/v1`, the probes and the metrics.

Starlette and uvicorn are the extra `http`. They are imported here alone, when a server starts.
"""
