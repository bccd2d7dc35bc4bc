"""The conformance suite against the providers that come with the package."""

from __future__ import annotations

import pytest

from abe_router.backends.memory import MemoryBackend
from abe_router.conformance import BackendConformance


class TestMemory(BackendConformance):
    lease, pause = 0.05, 0.01

    def make_backend(self, store):
        return MemoryBackend()


class TestSQLite(BackendConformance):
    lease, pause = 0.1, 0.02

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path):
        self.url = f"sqlite:///{tmp_path}/log.db"


class TestRedis(BackendConformance):
    lease, pause = 0.1, 0.02

    @pytest.fixture(autouse=True)
    def _server(self, redis_server):
        # Who may do no more than `doctor` says is needed: so that is all that is needed.
        self.url = redis_server.url.replace("//", "//least:right@")
        self.stop_server, self.start_server = redis_server.kill, redis_server.start
