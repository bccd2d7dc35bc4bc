"""Clients that are cut off together with their primary, and primaries that freeze: what is lost."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import contextmanager

import pytest

from abe_router.backends.redis import finder
from abe_router.backends.redis.finder import slot_of
from abe_router.errors import BackendUnavailable
from abe_router.testing import RedisServer
from chaos.redis_servers import RedisCluster, RedisSentinels, call, until
from tests.limits import HANG

from .redis_load import Load

pytestmark = pytest.mark.heavy(60)


@pytest.fixture(autouse=True)
def servers_are_installed():
    if not RedisServer.installed():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed")


@contextmanager
def frozen(*servers):
    """Stop servers; their connections stay open."""
    for server in servers:
        server._process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for server in servers:
            server._process.send_signal(signal.SIGCONT)


async def refused(load):
    """Wait until another publish was refused."""
    count = len(load.refused)
    async with asyncio.timeout(HANG):
        while len(load.refused) == count:
            await asyncio.sleep(0.01)


@pytest.fixture
def unreachable(monkeypatch):
    """Return the ports that this process cannot reach, at first none."""
    ports: set[int] = set()
    ask = finder.ask

    async def ask_if_reached(address, place, *rest):
        if place.port in ports:
            raise BackendUnavailable(f"{place} is cut off")
        return await ask(address, place, *rest)

    monkeypatch.setattr(finder, "ask", ask_if_reached)
    return ports


@pytest.mark.parametrize("replicas", [0, 1])
async def test_a_client_cut_off_with_the_primary_loses_nothing_that_a_replica_confirmed(
    tmp_path, unreachable, replicas
):
    """The primary refuses the Sentinels and the replica, and the client does not reach the Sentinels."""
    with RedisSentinels(tmp_path) as sentinels:
        async with Load(f"{sentinels.url}?replicas={replicas}", "cut.") as load:
            await load.more()
            old = sentinels.primary()
            unreachable.update(sentinels.ports)
            call(old, "ACL", "SETUSER", "default", "-ping", "-replconf", "-psync")
            call(old, "CLIENT", "KILL", "TYPE", "replica")
            await asyncio.to_thread(until, lambda: sentinels.primary() is not old)
            await (refused(load) if replicas else load.more())
            call(old, "ACL", "SETUSER", "default", "+@all")
            unreachable.clear()
            await asyncio.to_thread(sentinels.wait, 1_000_000)
            await load.more()
    assert bool(load.lost) is (replicas == 0)


async def test_a_primary_that_freezes_loses_nothing_that_a_replica_confirmed(
    tmp_path,
):
    with RedisSentinels(tmp_path) as sentinels:
        async with Load(f"{sentinels.url}?replicas=1", "frozen.") as load:
            await load.more()
            old = sentinels.primary()
            with frozen(old):
                await asyncio.to_thread(until, lambda: sentinels.primary() is not old)
            await load.more()
            await asyncio.to_thread(sentinels.wait, 1_000_000)
    assert not load.lost


async def test_a_master_cut_off_with_its_client_accepts_nothing_after_the_node_timeout(tmp_path):
    """The others are stopped first, and then the master. Its replica lacks what it took meanwhile."""
    slot = slot_of("minority.")
    with RedisCluster(tmp_path) as cluster:
        async with Load(f"{cluster.url}?replicas=1&socket_timeout=1", "minority.") as load:
            await load.more()
            await asyncio.to_thread(cluster.wait, 1_000_000)
            old = cluster.owner(slot)
            with frozen(*(node for node in cluster.nodes if node is not old)):
                call(old, "CLIENT", "KILL", "TYPE", "replica")
                await asyncio.to_thread(until, lambda: call(old, "CLUSTER INFO")["cluster_state"] == "fail")
                await refused(load)
                accepted = len(load.accepted)
                await refused(load)
                assert len(load.accepted) == accepted
                old._process.send_signal(signal.SIGSTOP)
            await asyncio.to_thread(until, lambda: cluster.owner(slot) is not old)
            old._process.send_signal(signal.SIGCONT)
            await load.more()
            await asyncio.to_thread(cluster.wait, 1_000_000)
    assert not load.lost
