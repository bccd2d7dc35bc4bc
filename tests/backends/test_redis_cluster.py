"""The whole contract on a cluster node: with one hash tag all names share a slot."""

from __future__ import annotations

import os
import time

import pytest
from redis import Redis

from abe_router.backends.redis import RedisBackend
from abe_router.conformance import BackendConformance
from abe_router.errors import BackendError
from abe_router.testing import RedisServer
from abe_router.testing.redis_server import free_port


def serve_all_slots(server):
    """Assign all slots to a cluster node, and wait until it serves them."""
    with Redis.from_url(server.url) as client:
        if not client.cluster("SLOTS"):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        patience = time.monotonic() + 10
        while "cluster_state:ok" not in str(client.execute_command("CLUSTER", "INFO")):
            assert time.monotonic() < patience
            time.sleep(0.01)


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    if not RedisServer.installed():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed")
    folder = tmp_path_factory.mktemp("cluster")
    # The default, 10,000 above the other port, is one of those that outgoing connections take.
    bus = ["--cluster-port", str(free_port())]
    with RedisServer(folder, durable=True, options=["--cluster-enabled", "yes", *bus]) as server:
        serve_all_slots(server)
        yield server


class TestRedisCluster(BackendConformance):
    lease, pause = 0.1, 0.02

    @pytest.fixture(autouse=True)
    def _node(self, node):
        self.url, self.server = f"{node.url}?hash_tag=abe", node

    def stop_server(self):
        self.server.kill()

    def start_server(self):
        self.server.start()
        serve_all_slots(self.server)


async def test_without_a_hash_tag_it_is_refused(node):
    with pytest.raises(BackendError, match="is part of a cluster, which is not supported"):
        await RedisBackend.from_url(node.url).open()


async def test_all_names_on_the_server_are_in_one_slot(node):
    async with RedisBackend.from_url(f"{node.url}?hash_tag=abe", prefix="slot.") as backend:
        subscription = await backend.subscribe("orders.*", "billing")
        await backend.publish("orders.created", 1, id="a", window=60.0)
        assert await subscription.fetch(1, 5.0)
        await backend.put("bucket", "name", b"value", ttl=60.0)
        await backend.take_tokens("rate", 0.1, 1)
        await backend.trim({"orders.*": 60.0})
    with Redis.from_url(node.url, decode_responses=True) as client:
        names = [name for name in client.scan_iter() if "slot." in name]
        assert "{abe}slot.orders.created" in names
        assert len(names) > 7
        assert len({client.cluster("KEYSLOT", name) for name in names}) == 1
