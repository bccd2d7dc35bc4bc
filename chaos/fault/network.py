"""What happens between the router and Redis; all of it is over before a lease is."""

from __future__ import annotations

import asyncio

from chaos.fault.fault import REDIS, Fault, repeated
from chaos.proxy import Proxy
from chaos.stage import LONG, Setup, Stage
from chaos.store import ANSWER_TIMEOUT

#: Until when a dead connection has been noticed and replaced, in seconds.
NOTICED = 1.5 * ANSWER_TIMEOUT + 0.5
#: How long nobody is let in, and how long replies are lost, in seconds.
CLOSED, MUTED = (0.1, 0.6), (0.02, 0.2)
#: How long each piece takes, in seconds, and its greatest size in bytes, on a bad line.
DELAY, PIECE = 0.03, 1024


async def cut(stage: Stage) -> bool:
    """Reset all connections, and sometimes let nobody in for a while."""
    proxy = _proxy(stage)
    with stage.afflicting():
        proxy.open = stage.rng.random() < 0.5
        proxy.cut()
        if not proxy.open:
            await asyncio.sleep(stage.rng.uniform(*CLOSED))
            proxy.open = True
    return True


async def swallow(stage: Stage) -> bool:
    """Let all connections carry nothing any more, and look alive."""
    with stage.afflicting():
        _proxy(stage).swallow()
        await asyncio.sleep(NOTICED)
    return True


async def mute(stage: Stage) -> bool:
    """Let through what is asked, and not what is answered; then cut."""
    proxy = _proxy(stage)
    with stage.afflicting():
        proxy.mute()
        await asyncio.sleep(stage.rng.uniform(*MUTED))
        proxy.cut()
    return True


async def delay(stage: Stage) -> None:
    """Carry everything late, and in pieces."""
    proxy = _proxy(stage)
    proxy.delay, proxy.piece = DELAY, PIECE
    stage.count += 1
    await stage.last()
    proxy.delay = 0.0


def _proxy(stage: Stage) -> Proxy:
    assert stage.proxy is not None
    return stage.proxy


PROXIED = Setup(lease=LONG, proxied=True)
FAULTS = (
    Fault("cut", "connections cut", repeated(cut, 0.1, 0.4), (REDIS,), PROXIED),
    Fault("half-open", "connections half-open", repeated(swallow, 0.3, 0.6), (REDIS,), PROXIED),
    Fault("mute", "replies lost", repeated(mute, 0.2, 0.5), (REDIS,), PROXIED),
    Fault("slow", "a slow line", delay, (REDIS,), PROXIED),
)
