"""The conformance suite against the providers that come with the package."""

from __future__ import annotations

from abe_router.backends.memory import MemoryBackend
from abe_router.testing.conformance import BackendConformance


class TestMemory(BackendConformance):
    lease, pause = 0.06, 0.01

    def make_backend(self, store):
        return MemoryBackend()
