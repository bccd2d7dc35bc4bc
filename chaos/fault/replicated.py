"""Faults of a cluster and of Sentinels: masters that die, and a slot that moves."""

from __future__ import annotations

import asyncio
import time

from chaos.fault import process
from chaos.fault.fault import REDIS, Fault
from chaos.redis_servers import DOWN_AFTER, RedisCluster, RedisSentinels, until
from chaos.routes_file import DONE, KEY
from chaos.storage import ReplicatedStorage
from chaos.testbed import LONG, Setup, Testbed

#: Time between two keys of a slot that moves, in seconds.
_PAUSE = 0.05


async def fail_over(testbed: Testbed) -> None:
    """Kill the master, and start it again at once when its replica has taken over."""
    storage = replicated(testbed)
    testbed.count += 1
    old = storage.owner()
    begin = time.time()
    await asyncio.to_thread(storage.replicate)
    with testbed.injecting(loses=begin, undoes=begin):
        old.kill()
        await asyncio.to_thread(until, lambda: storage.owner() is not old)
        old.start()
        # The new master has everything from here on. Outcomes that the old one stored may still be logged.
        await asyncio.to_thread(storage.servers.wait, 1_000_000)
    new = storage.owner()
    await testbed.last()
    if storage.owner() is not new:  # what that loses or undoes is no fault of the router
        why = f"a master that stood still for {DOWN_AFTER} ms was replaced: repeat the row"
        testbed.violations.append(why)


async def move(testbed: Testbed) -> None:
    """Move the slot with all that is stored to another master, and on."""
    storage = replicated(testbed)
    assert isinstance(storage.servers, RedisCluster)
    while not (testbed.is_over and testbed.count):
        before = storage.owner()
        await asyncio.to_thread(storage.servers.move, storage.slot, pause=_PAUSE)
        if storage.owner() is before:
            testbed.violations.append("the slot did not move")
        testbed.count += 1


async def spread(testbed: Testbed) -> None:
    """Kill workers, and with them movers, while the masters of a cause and then of its output die."""
    storage = replicated(testbed)
    async with asyncio.TaskGroup() as faults:
        faults.create_task(_kill_workers(testbed))
        for key in (KEY, DONE):
            storage.use(key)
            await fail_over(testbed)


async def _kill_workers(testbed: Testbed) -> None:
    async for _ in testbed.moments(0.4, 0.8):
        testbed.count += await process.kill(testbed)


def replicated(testbed: Testbed) -> ReplicatedStorage:
    """Return the servers of a testbed."""
    assert isinstance(testbed.storage, ReplicatedStorage)
    return testbed.storage


# When a failover undoes an ack of an ordered route, the message stays in flight until the process ends.
CLUSTER = Setup(servers=RedisCluster, lease=LONG, ordered=False)
SENTINELS = Setup(servers=RedisSentinels, lease=LONG, ordered=False)
SPREAD = Setup(servers=RedisCluster, lease=LONG, ordered=False, slots=16, workers=3)
MOVING = Setup(servers=RedisCluster, lease=LONG)
FAULTS = (
    Fault("slot", "a slot of a cluster moved", move, (REDIS,), MOVING),
    Fault("master", "a master of a cluster killed", fail_over, (REDIS,), CLUSTER, duplicates=True),
    # A worker that starts while no master takes over ends.
    Fault(
        "slots",
        "movers and masters killed, `slots=16`",
        spread,
        (REDIS,),
        SPREAD,
        duplicates=True,
        exits=True,
    ),
    Fault("primary", "a primary of Sentinels killed", fail_over, (REDIS,), SENTINELS, duplicates=True),
)
