"""The conformance suite against the providers that come with the package."""

from __future__ import annotations

import pytest

from abe_router.backends.memory import MemoryBackend
from abe_router.conformance import BackendConformance


class TestMemory(BackendConformance):
    lease, pause = 0.05, 0.01

    def make_backend(self, prefix):
        return MemoryBackend()


class TestSQLite(BackendConformance):
    lease, pause = 0.1, 0.02

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path):
        self.url = f"sqlite:///{tmp_path}/log.db"
        self._files = [tmp_path / name for name in ("log.db", "log.db-wal")]

    def snapshot(self):
        return [file.read_bytes() if file.exists() else None for file in self._files]


class TestRedis(BackendConformance):
    lease, pause = 0.1, 0.02

    @pytest.fixture(autouse=True)
    def _server(self, redis_server):
        # This user has only the rights that `doctor` asks for, which shows that they are enough.
        self.url = redis_server.url.replace("//", "//least:right@")
        self.stop_server, self.start_server = redis_server.kill, redis_server.start
