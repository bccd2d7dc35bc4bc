"""The conformance suite against the recording backend, so that it behaves like a real one."""

from __future__ import annotations

from abe_router.conformance import BackendConformance
from abe_router.testing import RecordingBackend


class TestRecording(BackendConformance):
    lease, pause = 0.06, 0.01

    def make_backend(self, prefix):
        return RecordingBackend()
