"""What happens to Redis."""

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

#: How long the server stays away, in seconds: shorter and longer than a lease.
AWAY = 0.1, 2.5
#: How old may be, in seconds, what a server that syncs every second has not written yet: while a sync takes
#: long, it puts off to write.
UNSYNCED = 2.0
#: How long a worker may take to make again what was lost, in seconds: it pauses longer each time.
RECOVERY_TIME = 3.0
#: Most warnings and errors of a worker in that time, but for those about single messages; more is a hot loop.
MAX_WARNINGS = 10
#: How far below what it uses the server's memory is limited, in bytes, and for how long, in seconds.
SHORTFALL, SHORTAGE = 64 * 1024, 0.8
#: For how long workers stand still so that messages wait for them, in seconds.
BACKLOG = 0.3
#: How many messages a stranger leaves in the stream.
TRIMMED_TO = 5
#: How long a replica lags behind when it is promoted, in seconds.
REPLICA_LAG = 0.3


async def crash(testbed: Testbed) -> bool:
    """Kill the server, and start it again on what it kept."""
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
    """Empty the server, delete a stream, destroy a group, start the server with nothing."""
    commands = ("FLUSHALL",), ("DEL", KEY), ("XGROUP", "DESTROY", KEY, "loop")
    blows = {command[0]: partial(_emptied, testbed, command) for command in commands}
    for name, blow in {**blows, "a restart": partial(_restarted, testbed)}.items():
        if not await _forget(testbed, blow):
            testbed.violations.append(f"nobody told of the loss by {name}")
    await testbed.last()


async def _emptied(testbed: Testbed, command: Sequence[str]) -> InjectedFault:
    """Carry out a command; who destroys a group takes nothing out of the stream, so all of it comes again."""
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
    """Leave the server no memory for a while: what is refused is told, and acks go on."""
    storage = redis_of(testbed)
    before, began = testbed.unaccepted(), time.time()
    with testbed.injecting():
        # Something must wait to be acked when nothing more is accepted.
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
        testbed.violations.append("the memory was never short")
    if not any(word.at > began + BACKLOG for worker in testbed.workers.running for word in worker.told()):
        testbed.violations.append("nothing was acked while memory was short")
    return True


async def fail_over(testbed: Testbed) -> None:
    """Promote a replica that lags behind, and have everybody go there."""
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
    # What comes before this on the old one is known to the new one.
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
        # What was decided on the old server may still be told of.
        await asyncio.sleep(REPLICA_LAG)


async def trim(testbed: Testbed) -> None:
    """Have a stranger trim the stream while messages wait in it.

    Nobody tells of that: what was trimmed before it was handed out leaves no trace.
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
    """Have the server forget something, from which workers must recover without much noise.

    Say whether one told of it.
    """
    testbed.count += 1
    await asyncio.sleep(testbed.rng.uniform(0.3, 0.6))
    began = time.time()
    testbed.injected.append(await how())
    await asyncio.sleep(RECOVERY_TIME)
    told = [worker.violations(since=began) for worker in testbed.workers.running]
    testbed.violations += [
        f"{len(each)} violations in {RECOVERY_TIME:g} s: {each[0]}"
        for each in told
        if len(each) > MAX_WARNINGS
    ]
    return any(told)


def redis_of(testbed: Testbed) -> RedisStorage:
    """Return the server of a testbed."""
    assert isinstance(testbed.storage, RedisStorage)
    return testbed.storage


# An ack of an ordered route that a failover takes back leaves its message in hand until the process ends.
UNORDERED = Setup(proxied=True, ordered=False)
EVERYSEC = Setup(redis={"appendfsync": "everysec"})
FAULTS = (
    Fault("crash", "Redis killed, fsync always", repeated(crash, 0.3, 0.8), (REDIS,), doubles=True),
    Fault(
        "everysec",
        "Redis killed, fsync everysec",
        repeated(crash, 0.3, 0.8),
        (REDIS,),
        EVERYSEC,
        doubles=True,
    ),
    Fault("memory", "Redis out of memory", repeated(fill, 0.2, 0.4), (REDIS,), Setup(lease=LONG)),
    Fault("empty", "Redis emptied", empty, (REDIS,), doubles=True),
    Fault("trim", "a stream trimmed by a stranger", trim, (REDIS,), doubles=True),
    Fault("failover", "a replica promoted", fail_over, (REDIS,), UNORDERED, doubles=True),
)
