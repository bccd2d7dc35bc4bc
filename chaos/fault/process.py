"""What happens to processes."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import chaos
from chaos.fault.fault import Fault, repeated
from chaos.stage import LONG, Setup, Stage
from chaos.store import RedisStore

#: How long a worker is frozen, as a multiple of the lease: it comes back while others are at its work, or done.
FROZEN = 1.05, 1.6
#: What consumes in place of `abe-router serve` where calls are cancelled.
CANCELLER = Path(chaos.__file__).with_name("canceller.py")


async def none(stage: Stage) -> None:
    """Do nothing."""
    await stage.last()


async def kill(stage: Stage) -> None:
    """Kill a worker."""
    if victim := stage.crew.pick():
        victim.kill()


async def term(stage: Stage) -> None:
    """Ask a worker to end, as a deploy does."""
    if victim := stage.crew.pick():
        code, seconds = await victim.terminate()
        stage.drained(code, seconds)
        stage.recoveries.append(seconds)


async def freeze(stage: Stage) -> None:
    """Stop a worker for longer than its lease, and let it go on.

    On SQLite it may hold the file's lock meanwhile, and then the leases of all others run out too.
    """
    if victim := stage.crew.pick():
        with stage.afflicting(victim.pid if isinstance(stage.store, RedisStore) else None):
            victim.signal(signal.SIGSTOP)
            await asyncio.sleep(stage.setup.lease * stage.rng.uniform(*FROZEN))
        victim.signal(signal.SIGCONT)


async def kill_producer(stage: Stage) -> None:
    """Kill the producer, and start another."""
    await stage.produce()


THREE = Setup(workers=3)
FAULTS = (
    Fault("none", "nothing", none, setup=Setup(lease=LONG)),
    Fault("kill", "workers killed", repeated(kill, 0.3, 0.7), setup=THREE, doubles=True),
    Fault("term", "workers asked to end", repeated(term, 0.1, 0.3), setup=Setup(lease=LONG, workers=3)),
    Fault(
        "freeze",
        "workers frozen beyond the lease",
        repeated(freeze, 0.05, 0.3),
        setup=Setup(lease=1.0, workers=3),
        doubles=True,
    ),
    Fault("cancel", "calls cancelled at random", none, setup=Setup(lease=LONG, program=CANCELLER)),
    Fault("producers", "producers killed", repeated(kill_producer, 0.2, 0.6), setup=Setup(lease=LONG)),
)
