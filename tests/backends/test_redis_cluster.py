"""Redis Cluster: the whole contract on three masters with a replica each."""

from __future__ import annotations

import os

import pytest
from redis import Redis

from abe_router.backends import make_backend
from abe_router.backends.redis import RedisBackend
from abe_router.backends.redis.finder import slot_of
from abe_router.backends.redis.health import rules
from abe_router.backends.redis.names import Names
from abe_router.conformance import BackendConformance
from abe_router.testing import RedisServer

from .redis_servers import RedisCluster, call, until

pytestmark = pytest.mark.heavy

TAG = "abe"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if not RedisServer.installed():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed")
    with RedisCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


class TestRedisCluster(BackendConformance):
    lease, pause, backlog, entries = 0.1, 0.02, 4000, 2500

    @pytest.fixture(autouse=True)
    def _cluster(self, cluster):
        self.cluster = cluster
        self.owner = cluster.owner(slot_of(TAG))
        # Other processes, and the proxy that loses replies, use one node, which is the owner of the slot.
        self.url = f"{self.owner.url}?hash_tag={TAG}"

    def make_backend(self, prefix):
        return make_backend(f"{self.cluster.url}?hash_tag={TAG}", prefix=prefix)

    def stop_server(self):
        self.cluster.wait()
        self.owner.kill()

    def start_server(self):
        # Before that, it would serve the slot again, and without its data.
        until(lambda: self.cluster.owner(slot_of(TAG)) is not self.owner)
        self.owner.start()
        self.cluster.wait()


async def test_the_url_of_any_node_finds_the_cluster(cluster):
    for node in cluster.nodes:
        async with RedisBackend.from_url(node.url, prefix="shop.") as backend:
            await backend.publish("orders.created", 1)
            assert backend.url.startswith("redis+cluster://127.0.0.1:")
    assert call(cluster.owner(slot_of("shop.")), "XLEN", "{shop.}shop.orders.created") == 6


async def test_the_rights_that_doctor_names_are_enough(cluster):
    names = Names("least.", "least.")
    for node in cluster.nodes:
        call(node, "ACL", "SETUSER", "least", "reset", "on", ">right", *rules(names))
    url = cluster.url.replace("//", "//least:right@")
    async with RedisBackend.from_url(url, prefix="least.") as backend:
        subscription = await backend.subscribe("orders.created", "billing")
        await backend.publish("orders.created", 1)
        assert await subscription.fetch(1, 5.0)
        results = {result.code: result for result in await backend.check_health()}
        assert results["D303"].severity == "ok"


async def test_all_names_on_the_server_are_in_one_slot(cluster):
    async with RedisBackend.from_url(cluster.url, prefix="slot.") as backend:
        subscription = await backend.subscribe("orders.*", "billing")
        await backend.publish("orders.created", 1, id="a", window=60.0)
        assert await subscription.fetch(1, 5.0)
        await backend.put("bucket", "name", b"value", ttl=60.0)
        await backend.take_tokens("rate", 0.1, 1)
        await backend.trim({"orders.*": 60.0})
    with Redis.from_url(cluster.owner(slot_of("slot.")).url, decode_responses=True) as client:
        names = [name for name in client.scan_iter() if "slot." in name]
        assert "{slot.}slot.orders.created" in names
        assert len(names) > 7
        assert {slot_of(name.partition("{")[2].partition("}")[0]) for name in names} == {slot_of("slot.")}
        assert {client.cluster("KEYSLOT", name) for name in names} == {slot_of("slot.")}
