"""Keys that are spread over several hash tags of a Redis Cluster: `?slots=N`."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from abe_router.backend import ACKED
from abe_router.backends import make_backend
from abe_router.backends.redis.finder import slot_of
from abe_router.backends.redis.layout import Layout
from abe_router.conformance import BackendConformance
from abe_router.conformance.emit import EmitTests
from abe_router.conformance.exclusive import ExclusiveTests
from abe_router.conformance.harness import KEY
from abe_router.conformance.pattern import PatternTests
from abe_router.conformance.peek import PeekTests
from abe_router.conformance.status import StatusTests
from abe_router.conformance.suite import LONGER
from abe_router.errors import BackendUnavailable
from abe_router.messages.message import new_message
from chaos.redis_servers import RedisCluster, call, until
from tests.limits import HANG

from .redis_load import Load

pytestmark = pytest.mark.heavy(45)


#: The keys of the tests that stop a server.
KEYS = (KEY, "quiet.key")


class Spread(
    EmitTests,
    ExclusiveTests,
    PatternTests,
    PeekTests,
    StatusTests,
):
    """The tests of the suite that use several keys or patterns."""


#: The whole suite takes minutes.
Suite = BackendConformance if LONGER else Spread


def home_of(cluster, slots):
    """Return a hash tag that lies with those of KEYS on one master, and that master."""
    for number in range(1000):
        layout = Layout(slots, f"abe{number}")
        owners = {
            cluster.owner(slot_of(tag))
            for tag in (layout.tags[0], *(layout.tags[layout.number(key)] for key in KEYS))
        }
        if len(owners) == 1:
            return layout.tags[0], owners.pop()
    raise AssertionError("no tag lies with those of the keys on one master")


class TestSlots(Suite):
    lease, pause, backlog, entries, patience = 0.2, 0.05, 4000, 2500, 30.0
    slots = 16

    @pytest.fixture(autouse=True)
    def _cluster(self, cluster):
        self.cluster = cluster
        self.tag, self.owner = home_of(cluster, self.slots)
        options = f"?hash_tag={self.tag}&slots={self.slots}"
        # Other processes, and the proxy that loses replies, use the node that has all keys of these tests.
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


@pytest.mark.skipif(not LONGER, reason="needs ABE_ROUTER_LONGER")
class TestThreeSlots(TestSlots):
    slots = 3


def owners(cluster, prefix):
    """Return the slots of the tags of a cause and of its output, which differ."""
    layout = Layout(16, prefix)
    slots = [slot_of(layout.tags[layout.number(key)]) for key in ("orders.k0", "done.k0")]
    assert slots[0] != slots[1]
    return slots


async def test_moving_tags_refuses_loses_and_doubles_nothing(cluster):
    async with Load(f"{cluster.url}?slots=16", "moves.", emits=True) as load:
        for slot in owners(cluster, "moves."):
            await load.more()
            before = cluster.owner(slot)
            assert await asyncio.to_thread(cluster.move, slot, pause=0.01) is not before
        await load.more()
    assert not load.refused
    assert not load.outages
    assert not load.lost
    assert not load.doubled
    assert load.emitted == Counter(load.accepted)


@pytest.mark.skipif(not LONGER, reason="needs ABE_ROUTER_LONGER")
async def test_what_replicas_confirmed_outlives_masters(cluster):
    async with Load(f"{cluster.url}?slots=16&replicas=1", "dies.", emits=True) as load:
        for slot in owners(cluster, "dies."):
            await load.more()
            owner = cluster.owner(slot)
            await asyncio.to_thread(cluster.wait, 1_000_000)
            owner.kill()
            await asyncio.to_thread(until, lambda owner=owner, slot=slot: cluster.owner(slot) is not owner)
            owner.start()
            await load.more()
            await asyncio.to_thread(cluster.wait, 1_000_000)
    assert not load.lost
    assert {id for id, count in load.emitted.items() if count > 1} == set()
    assert set(load.emitted) >= load.accepted


@pytest.mark.skipif(not LONGER, reason="needs ABE_ROUTER_LONGER")
async def test_absent_master_holds_up_no_other(tmp_path):
    with RedisCluster(tmp_path, replicas=False) as cluster:
        for node in cluster.nodes:
            call(node, "CONFIG", "SET", "cluster-require-full-coverage", "no")
        layout, by_owner = Layout(16, "absent."), {}
        for key in (f"orders.k{number}" for number in range(60)):
            by_owner.setdefault(cluster.owner(slot_of(layout.tags[layout.number(key)])), []).append(key)
        home = cluster.owner(slot_of(layout.tags[0]))
        victim = next(node for node in by_owner if node is not home)
        async with make_backend(f"{cluster.url}?slots=16", prefix="absent.") as backend:
            handle = await backend.subscribe("orders.*", "billing")
            victim.kill()
            live = [key for node, keys in by_owner.items() if node is not victim for key in keys]
            for _ in range(3):
                await backend.append([new_message(key, b"1") for key in live])
                left = set(live)
                async with asyncio.timeout(HANG):
                    while left:
                        held = await handle.fetch(100, HANG)
                        assert not await handle.settle([(each, ACKED) for each in held])
                        left -= {each.message.key for each in held}
            with pytest.raises(BackendUnavailable):
                await backend.append([new_message(by_owner[victim][0], b"1")])
            with pytest.raises(BackendUnavailable):
                await handle.fetch(10, 1.0)
