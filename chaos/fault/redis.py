"""What happens to Redis."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from chaos.checker import Affliction
from chaos.fault.fault import REDIS, Fault, repeated
from chaos.scene import DONE, KEY, STEP
from chaos.stage import LONG, Setup, Stage
from chaos.store import RedisStore

#: How long the server stays away, in seconds: shorter and longer than a lease.
AWAY = 0.1, 2.5
#: How old may be, in seconds, what a server that syncs every second has not written yet: while a sync takes
#: long, it puts off to write.
UNSYNCED = 2.0
#: How long a worker may take to make again what was lost, in seconds: it pauses longer each time.
RESTORED = 3.0
#: Most warnings and errors of a worker in that time, but for those about single messages; more is a hot loop.
LOUD = 10
#: How far below what it uses the server's memory is limited, in bytes, and for how long, in seconds.
MISSING, STARVED = 64 * 1024, 0.8
#: For how long workers stand still so that messages wait for them, in seconds.
BACKLOG = 0.3
#: How many messages a stranger leaves in the stream.
TRIMMED_TO = 5
#: How long a replica lags behind when it is promoted, in seconds.
BEHIND = 0.3


async def crash(stage: Stage) -> bool:
    """Kill the server, and start it again on what it kept."""
    store = redis_of(stage)
    always = stage.setup.redis.get("appendfsync") != "everysec"
    async with store.down:
        unsynced = math.inf if always else time.time() - UNSYNCED
        with stage.afflicting(loses=unsynced, undoes=unsynced):
            store.kill()
            await asyncio.sleep(stage.rng.uniform(*AWAY))
            await store.start()
    return True


async def empty(stage: Stage) -> None:
    """Empty the server, delete a stream, destroy a group, start the server with nothing."""
    commands = ("FLUSHALL",), ("DEL", KEY), ("XGROUP", "DESTROY", KEY, "loop")
    blows = {command[0]: partial(_emptied, stage, command) for command in commands}
    for name, blow in {**blows, "a restart": partial(_restarted, stage)}.items():
        if not await _forget(stage, blow):
            stage.complaints.append(f"nobody told of the loss by {name}")
    await stage.last()


async def _emptied(stage: Stage, command: Sequence[str]) -> Affliction:
    """Carry out a command; who destroys a group takes nothing out of the stream, so all of it comes again."""
    store, begin = redis_of(stage), time.time()
    keys = (KEY,) if KEY in command else (KEY, STEP, DONE)
    held = store.messages(*keys)
    store.ask(*command)
    if command[0] == "XGROUP":
        replayed = frozenset((message, "loop") for message in store.messages(KEY))
        return Affliction(begin, time.time(), replayed=replayed)
    return Affliction(begin, time.time(), loses=begin, taken=frozenset(held.values()))


async def _restarted(stage: Stage) -> Affliction:
    store, begin = redis_of(stage), time.time()
    held = store.messages(KEY, STEP, DONE)
    store.kill()
    store.wipe()
    await store.start()
    return Affliction(begin, time.time(), loses=begin, taken=frozenset(held.values()))


async def fill(stage: Stage) -> bool:
    """Leave the server no memory for a while: what is refused is told, and acks go on."""
    store = redis_of(stage)
    before, began = stage.unaccepted(), time.time()
    with stage.afflicting():
        # Something must wait to be acked when nothing more is accepted.
        for worker in stage.crew.running:
            worker.freeze()
        await asyncio.sleep(BACKLOG)
        used = int(store.client.info("memory")["used_memory"])
        store.ask("CONFIG", "SET", "maxmemory", used - MISSING)
        for worker in stage.crew.running:
            worker.thaw()
        await asyncio.sleep(STARVED)
        refused = stage.unaccepted() - before
        store.ask("CONFIG", "SET", "maxmemory", 0)
    if refused <= 0:
        stage.complaints.append("the memory was never short")
    if not any(word.at > began + BACKLOG for worker in stage.crew.running for word in worker.told()):
        stage.complaints.append("nothing was acked while memory was short")
    return True


async def fail_over(stage: Stage) -> None:
    """Promote a replica that lags behind, and have everybody go there."""
    stage.count += 1
    assert stage.proxy is not None
    old = redis_of(stage)
    folder = stage.folder / f"replica-{stage.count}"
    folder.mkdir()
    new = RedisStore(folder, stage.setup.redis)
    await new.start()
    new.ask("REPLICAOF", "127.0.0.1", old.port)
    while new.client.info("replication")["master_link_status"] != "up":
        await asyncio.sleep(0.05)
    await asyncio.sleep(BEHIND)
    # What comes before this on the old one is known to the new one.
    begin = time.time()
    old.ask("SET", "chaos", 1)
    assert old.ask("WAIT", 1, 1000)
    with stage.afflicting(loses=begin, undoes=begin):
        new.ask("REPLICAOF", "NO", "ONE")
        await asyncio.sleep(BEHIND)
        old.kill()
        stage.proxy.target = new.port
        stage.proxy.cut()
        stage.adopt(new)
        # What was decided on the old server may still be told of.
        await asyncio.sleep(BEHIND)


async def trim(stage: Stage) -> None:
    """Have a stranger trim the stream while messages wait in it.

    Nobody tells of that: what was trimmed before it was handed out leaves no trace.
    """
    await _forget(stage, partial(_trimmed, stage))
    await stage.last()


async def _trimmed(stage: Stage) -> Affliction:
    begin, workers = time.time(), stage.crew.running
    for worker in workers:
        worker.freeze()
    await asyncio.sleep(BACKLOG)
    held = redis_of(stage).messages(KEY)
    redis_of(stage).ask("XTRIM", KEY, "MAXLEN", TRIMMED_TO)
    for worker in workers:
        worker.thaw()
    return Affliction(begin, time.time(), loses=begin, taken=frozenset(held.values()))


async def _forget(stage: Stage, how: Callable[[], Awaitable[Affliction]]) -> bool:
    """Have the server forget something, from which workers must recover without much noise.

    Say whether one told of it.
    """
    stage.count += 1
    await asyncio.sleep(stage.rng.uniform(0.3, 0.6))
    began = time.time()
    stage.afflictions.append(await how())
    await asyncio.sleep(RESTORED)
    told = [worker.complaints(since=began) for worker in stage.crew.running]
    stage.complaints += [
        f"{len(each)} complaints in {RESTORED:g} s: {each[0]}" for each in told if len(each) > LOUD
    ]
    return any(told)


def redis_of(stage: Stage) -> RedisStore:
    """Return the server of a stage."""
    assert isinstance(stage.store, RedisStore)
    return stage.store


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
