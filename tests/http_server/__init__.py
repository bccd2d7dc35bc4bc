"""Tests of the HTTP server: security, limits, probes, and its life beside the workers."""
