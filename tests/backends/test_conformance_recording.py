"""The conformance suite against the recording backend: a fake that passes it does not drift."""

from __future__ import annotations

from abe_router.testing import RecordingBackend
from abe_router.testing.conformance import BackendConformance


class TestRecording(BackendConformance):
    lease, pause = 0.06, 0.01

    def make_backend(self, store):
        return RecordingBackend()
