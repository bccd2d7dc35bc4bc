"""The conformance suite against the recording backend, so that it behaves like a real one."""

from __future__ import annotations

from collections import deque

from abe_router.conformance import BackendConformance
from abe_router.testing import RecordingBackend


class TestRecording(BackendConformance):
    lease, pause = 0.06, 0.01

    def make_backend(self, prefix):
        backend = RecordingBackend()
        backend.published = deque(maxlen=1000)  # a check counts what is left after thousands of messages
        return backend
