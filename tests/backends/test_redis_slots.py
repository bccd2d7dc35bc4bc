"""Keys that are spread over several hash tags of a Redis Cluster: `?slots=N`."""

from __future__ import annotations

import os

import pytest

from abe_router.backends import make_backend
from abe_router.backends.redis.finder import slot_of
from abe_router.backends.redis.layout import Layout
from abe_router.conformance import BackendConformance
from abe_router.conformance.harness import KEY
from abe_router.testing import RedisServer
from chaos.redis_servers import RedisCluster, until

pytestmark = pytest.mark.heavy

SLOTS = 16


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if not RedisServer.installed():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed")
    with RedisCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def home_of(cluster, slots):
    """Return a hash tag that lies with the tag of KEY on one master, and that master."""
    for number in range(100):
        layout = Layout(slots, f"abe{number}")
        owners = {cluster.owner(slot_of(tag)) for tag in (layout.tags[0], layout.tags[layout.number(KEY)])}
        if len(owners) == 1:
            return layout.tags[0], owners.pop()
    raise AssertionError("no tag lies with that of the key on one master")


class TestSlots(BackendConformance):
    lease, pause, backlog, entries = 0.2, 0.05, 4000, 2500
    slots = SLOTS

    @pytest.fixture(autouse=True)
    def _cluster(self, cluster):
        self.cluster = cluster
        self.tag, self.owner = home_of(cluster, self.slots)
        options = f"?hash_tag={self.tag}&slots={self.slots}"
        # Other processes, and the proxy that loses replies, use the node with the first tag and that of KEY.
        self.url = f"{self.owner.url}{options}"
        self.whole = f"{cluster.url}{options}"

    def make_backend(self, prefix):
        return make_backend(self.whole, prefix=prefix)

    def stop_server(self):
        self.cluster.wait()
        self.owner.kill()

    def start_server(self):
        # Before that, it would serve the slot again, and without its data.
        until(lambda: self.cluster.owner(slot_of(self.tag)) is not self.owner)
        self.owner.start()
        self.cluster.wait()
