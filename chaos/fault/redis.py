"""Faults of Redis."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from chaos.checker import InjectedFault
from chaos.fault.fault import REDIS, Fault, repeated
from chaos.routes_file import DONE, KEY, STEP
from chaos.storage import RedisStorage
from chaos.testbed import LONG, Setup, Testbed

#: Downtime of the server, in seconds: shorter and longer than a lease.
AWAY = 0.1, 2.5
#: Age, in seconds, of the oldest data that a server with `appendfsync everysec` may not have written: it
#: delays writes while a sync takes long.
UNSYNCED = 2.0
#: Time in which a worker recovers what the server lost, in seconds; its backoff grows.
RECOVERY_TIME = 3.0
#: Most warnings and errors of a worker in that time, except those about single messages.
MAX_WARNINGS = 10
#: How far the memory limit is set below the used memory, in bytes, and for how long, in seconds.
SHORTFALL, SHORTAGE = 64 * 1024, 0.8
#: Time for which workers are frozen so that messages wait, in seconds.
BACKLOG = 0.3
#: Number of messages that remain in a trimmed stream.
TRIMMED_TO = 5
#: Lag of a replica when it is promoted, in seconds.
REPLICA_LAG = 0.3


async def crash(testbed: Testbed) -> bool:
    """Kill the server, and start it again on its data."""
    storage = redis_of(testbed)
    always = testbed.setup.redis.get("appendfsync") != "everysec"
    async with storage.down:
        unsynced = math.inf if always else time.time() - UNSYNCED
        with testbed.injecting(loses=unsynced, undoes=unsynced):
            storage.kill()
            await asyncio.sleep(testbed.rng.uniform(*AWAY))
            await storage.start()
    return True


async def empty(testbed: Testbed) -> None:
    """Empty the server, delete a stream, destroy a group, and restart the server without data."""
    commands = ("FLUSHALL",), ("DEL", KEY), ("XGROUP", "DESTROY", KEY, "loop")
    losses = {command[0]: partial(_emptied, testbed, command) for command in commands}
    for name, lose in {**losses, "a restart": partial(_restarted, testbed)}.items():
        if not await _forget(testbed, lose):
            testbed.violations.append(f"no worker logged the loss by {name}")
    await testbed.last()


async def _emptied(testbed: Testbed, command: Sequence[str]) -> InjectedFault:
    """Run a command. XGROUP DESTROY removes no message, so all messages of the stream are delivered again."""
    storage, begin = redis_of(testbed), time.time()
    keys = (KEY,) if KEY in command else (KEY, STEP, DONE)
    held = storage.messages(*keys)
    storage.ask(*command)
    if command[0] == "XGROUP":
        replayed = frozenset((message, "loop") for message in storage.messages(KEY))
        return InjectedFault(begin, time.time(), replayed=replayed)
    return InjectedFault(begin, time.time(), loses=begin, taken=frozenset(held.values()))


async def _restarted(testbed: Testbed) -> InjectedFault:
    storage, begin = redis_of(testbed), time.time()
    held = storage.messages(KEY, STEP, DONE)
    storage.kill()
    storage.wipe()
    await storage.start()
    return InjectedFault(begin, time.time(), loses=begin, taken=frozenset(held.values()))


async def fill(testbed: Testbed) -> bool:
    """Limit the memory of the server for a while: publishing is refused, acks still work."""
    storage = redis_of(testbed)
    before, began = testbed.unaccepted(), time.time()
    with testbed.injecting():
        # Messages must wait for their ack while nothing more is accepted.
        for worker in testbed.workers.running:
            worker.freeze()
        await asyncio.sleep(BACKLOG)
        used = int(storage.client.info("memory")["used_memory"])
        storage.ask("CONFIG", "SET", "maxmemory", used - SHORTFALL)
        for worker in testbed.workers.running:
            worker.thaw()
        await asyncio.sleep(SHORTAGE)
        refused = testbed.unaccepted() - before
        storage.ask("CONFIG", "SET", "maxmemory", 0)
    if refused <= 0:
        testbed.violations.append("the memory limit refused nothing")
    if not any(one.at > began + BACKLOG for worker in testbed.workers.running for one in worker.outcomes()):
        testbed.violations.append("nothing was acked while memory was short")
    return True


async def fail_over(testbed: Testbed) -> None:
    """Promote a lagging replica, and redirect all connections to it."""
    testbed.count += 1
    assert testbed.proxy is not None
    old = redis_of(testbed)
    folder = testbed.folder / f"replica-{testbed.count}"
    folder.mkdir()
    new = RedisStorage(folder, testbed.setup.redis)
    await new.start()
    new.ask("REPLICAOF", "127.0.0.1", old.port)
    while new.client.info("replication")["master_link_status"] != "up":
        await asyncio.sleep(0.05)
    await asyncio.sleep(REPLICA_LAG)
    # The replica has everything that the old server accepted before this moment.
    begin = time.time()
    old.ask("SET", "chaos", 1)
    assert old.ask("WAIT", 1, 1000)
    with testbed.injecting(loses=begin, undoes=begin):
        new.ask("REPLICAOF", "NO", "ONE")
        await asyncio.sleep(REPLICA_LAG)
        old.kill()
        testbed.proxy.target = new.port
        testbed.proxy.cut()
        testbed.move_to(new)
        # Workers still log outcomes that the old server stored, and handle what it had delivered.
        began = time.time()
        while testbed.control.since(began) < REPLICA_LAG:
            await asyncio.sleep(REPLICA_LAG / 10)


async def trim(testbed: Testbed) -> None:
    """Trim the stream while messages wait in it, as another program might.

    No worker logs that: messages that were never delivered leave no trace.
    """
    await _forget(testbed, partial(_trimmed, testbed))
    await testbed.last()


async def _trimmed(testbed: Testbed) -> InjectedFault:
    begin, workers = time.time(), testbed.workers.running
    for worker in workers:
        worker.freeze()
    await asyncio.sleep(BACKLOG)
    held = redis_of(testbed).messages(KEY)
    redis_of(testbed).ask("XTRIM", KEY, "MAXLEN", TRIMMED_TO)
    for worker in workers:
        worker.thaw()
    return InjectedFault(begin, time.time(), loses=begin, taken=frozenset(held.values()))


async def _forget(testbed: Testbed, how: Callable[[], Awaitable[InjectedFault]]) -> bool:
    """Make the server lose data; workers must recover with few log lines.

    Return whether a worker logged the loss.
    """
    testbed.count += 1
    await asyncio.sleep(testbed.rng.uniform(0.3, 0.6))
    began = time.time()
    testbed.injected.append(await how())
    await asyncio.sleep(RECOVERY_TIME)
    warnings = [worker.warnings(since=began) for worker in testbed.workers.running]
    testbed.violations += [
        f"{len(each)} warnings in {RECOVERY_TIME:g} s: {each[0]}"
        for each in warnings
        if len(each) > MAX_WARNINGS
    ]
    return any(warnings)


def redis_of(testbed: Testbed) -> RedisStorage:
    """Return the server of a testbed."""
    assert isinstance(testbed.storage, RedisStorage)
    return testbed.storage


# When a failover undoes an ack of an ordered route, the message stays in flight until the process ends.
UNORDERED = Setup(proxied=True, ordered=False)
EVERYSEC = Setup(redis={"appendfsync": "everysec"})
FAULTS = (
    Fault("crash", "Redis killed, fsync always", repeated(crash, 0.3, 0.8), (REDIS,), duplicates=True),
    Fault(
        "everysec",
        "Redis killed, fsync everysec",
        repeated(crash, 0.3, 0.8),
        (REDIS,),
        EVERYSEC,
        duplicates=True,
    ),
    Fault("memory", "Redis out of memory", repeated(fill, 0.2, 0.4), (REDIS,), Setup(lease=LONG)),
    Fault("empty", "Redis emptied", empty, (REDIS,), duplicates=True),
    Fault("trim", "a stream trimmed by another program", trim, (REDIS,), duplicates=True),
    Fault("failover", "a replica promoted", fail_over, (REDIS,), UNORDERED, duplicates=True),
)
