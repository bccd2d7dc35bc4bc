"""Faults of processes."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import chaos
from chaos.checker import InjectedFault
from chaos.fault.fault import Fault, repeated
from chaos.storage import SQLiteStorage
from chaos.supervisor import Supervisor
from chaos.testbed import LONG, Setup, Testbed

#: Time for which a worker is frozen, in leases.
FROZEN = 1.05, 1.6
#: How often a worker is checked until it is in the middle of its work.
TRIES = 50
#: Time after which a locked file counts as held by a frozen process, in seconds.
LOCK_CHECK = 0.3
#: Time in which a resumed worker may record a start from before the freeze, in seconds.
RECORD_DELAY = 0.25
#: Probability that the workers of a supervisor are killed with it.
WITH_WORKERS = 0.7
#: Replaces `abe-router serve` where calls are cancelled.
CANCELLER = Path(chaos.__file__).with_name("canceller.py")


async def none(testbed: Testbed) -> None:
    """Inject nothing."""
    await testbed.last()


async def cancel(testbed: Testbed) -> None:
    """Let the workers cancel their own calls."""
    await testbed.last()
    cancelled = (line for one in testbed.workers.all for line in one.lines("cancelled"))
    testbed.count = sum(line["event"] == "cancelled" for line in cancelled)


async def kill(testbed: Testbed) -> bool:
    """Kill a worker."""
    victim = testbed.workers.pick()
    if victim:
        victim.kill()
    return victim is not None


async def term(testbed: Testbed) -> bool:
    """Send SIGTERM to a worker, as a deploy does."""
    victim = testbed.workers.pick()
    if victim:
        testbed.recoveries.append(testbed.check_exit(*await victim.terminate()))
    return victim is not None


async def freeze(testbed: Testbed) -> bool:
    """Freeze a worker in the middle of its work for longer than its lease, then resume it.

    On SQLite it may hold the lock of the file meanwhile. The leases of all other workers then expire too.
    """
    victim = testbed.workers.pick()
    if victim:
        seconds = testbed.setup.lease * testbed.rng.uniform(*FROZEN)
        for _ in range(TRIES):
            began = time.time()
            victim.freeze()
            if testbed.is_at_work(victim.pid):
                break
            victim.thaw()
            await asyncio.sleep(0.01)
        victim.freeze()
        storage = testbed.storage
        held = isinstance(storage, SQLiteStorage) and await asyncio.to_thread(storage.is_locked, LOCK_CHECK)
        await asyncio.sleep(max(0.0, began + seconds - time.time()))
        testbed.injected.append(InjectedFault(began, time.time() + RECORD_DELAY, victim.pid))
        if held:
            testbed.injected.append(InjectedFault(began, time.time()))
        victim.thaw()
    return victim is not None


async def kill_producer(testbed: Testbed) -> bool:
    """Kill the producer, and start another."""
    await testbed.produce()
    return True


async def kill_child(testbed: Testbed) -> bool:
    """Kill a worker of a supervisor, unless it is the last one."""
    (family,) = testbed.workers.running
    assert isinstance(family, Supervisor)
    children = family.children
    if len(children) < 2:
        return False
    victim = testbed.rng.choice(children)
    with testbed.injecting(victim):
        family.kill_child(victim)
    return True


async def kill_family(testbed: Testbed) -> bool:
    """Kill a supervisor and, mostly, its workers with it; workers that remain must drain and exit."""
    family = testbed.workers.pick()
    if not isinstance(family, Supervisor):
        return False
    children = family.children if testbed.rng.random() < WITH_WORKERS else ()
    family.kill()
    for victim in children:
        with testbed.injecting(victim):
            family.kill_child(victim)
    return True


THREE_WORKERS = Setup(workers=3)
FAULTS = (
    Fault("none", "nothing", none, setup=Setup(lease=LONG)),
    Fault("kill", "workers killed", repeated(kill, 0.3, 0.7), setup=THREE_WORKERS, duplicates=True),
    Fault("term", "workers asked to end", repeated(term, 0.1, 0.3), setup=Setup(lease=LONG, workers=3)),
    Fault(
        "freeze",
        "workers frozen beyond the lease",
        repeated(freeze, 0.05, 0.3),
        setup=Setup(lease=1.0, workers=3),
        duplicates=True,
    ),
    Fault(
        "child",
        "workers of a supervisor killed",
        repeated(kill_child, 0.3, 0.7),
        setup=Setup(workers=1, children=3),
        duplicates=True,
    ),
    Fault(
        "family",
        "supervisor and workers killed",
        repeated(kill_family, 0.4, 0.8),
        setup=Setup(workers=2, children=2),
        duplicates=True,
    ),
    Fault(
        "cancel",
        "calls cancelled at random",
        cancel,
        setup=Setup(lease=LONG, program=CANCELLER, ordered=False),
    ),
    Fault("producers", "producers killed", repeated(kill_producer, 0.2, 0.6), setup=Setup(lease=LONG)),
)
