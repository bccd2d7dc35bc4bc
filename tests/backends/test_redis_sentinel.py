"""Redis Sentinel: the whole contract on a primary with a replica, and three Sentinels."""

from __future__ import annotations

import os

import pytest

from abe_router.backends import make_backend
from abe_router.conformance import BackendConformance
from abe_router.testing import RedisServer

from .redis_servers import RedisSentinels, until

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory):
    if not RedisServer.installed():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed")
    with RedisSentinels(tmp_path_factory.mktemp("sentinels"), auth="watch") as sentinels:
        yield sentinels


class TestRedisSentinel(BackendConformance):
    lease, pause, backlog, entries = 0.1, 0.02, 4000, 2500

    @pytest.fixture(autouse=True)
    def _sentinels(self, sentinels):
        self.sentinels = sentinels
        self.primary = sentinels.primary()
        # Other processes, and the proxy that loses replies, use the primary itself.
        self.url = self.primary.url

    def make_backend(self, prefix):
        return make_backend(f"{self.sentinels.url}?sentinel_password=watch", prefix=prefix)

    def stop_server(self):
        self.sentinels.wait()
        self.primary.kill()

    def start_server(self):
        until(lambda: self.sentinels.primary() is not self.primary)
        self.primary.start()
        self.sentinels.wait()
