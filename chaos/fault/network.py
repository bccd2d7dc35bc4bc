"""Faults of the network between the router and Redis; each is shorter than a lease."""

from __future__ import annotations

import asyncio

from chaos.fault.fault import REDIS, Fault, repeated
from chaos.proxy import Proxy
from chaos.storage import ANSWER_TIMEOUT
from chaos.testbed import LONG, Setup, Testbed

#: Time until a dead connection is detected and replaced, in seconds.
DETECTION_TIME = 1.5 * ANSWER_TIMEOUT + 0.5
#: Time without new connections, and time without replies, in seconds.
CLOSED_TIME, MUTE_TIME = (0.1, 0.6), (0.02, 0.2)
#: Delay of each piece, in seconds, and its largest size in bytes, on a slow connection.
DELAY, PIECE = 0.03, 1024


async def cut(testbed: Testbed) -> bool:
    """Reset all connections, and sometimes accept no new ones for a while."""
    proxy = _proxy(testbed)
    with testbed.injecting():
        proxy.open = testbed.rng.random() < 0.5
        proxy.cut()
        if not proxy.open:
            await asyncio.sleep(testbed.rng.uniform(*CLOSED_TIME))
            proxy.open = True
    return True


async def swallow(testbed: Testbed) -> bool:
    """Drop all bytes of all connections, and keep the connections open."""
    with testbed.injecting():
        _proxy(testbed).swallow()
        await asyncio.sleep(DETECTION_TIME)
    return True


async def mute(testbed: Testbed) -> bool:
    """Forward requests and drop replies, then cut."""
    proxy = _proxy(testbed)
    with testbed.injecting():
        proxy.mute()
        await asyncio.sleep(testbed.rng.uniform(*MUTE_TIME))
        proxy.cut()
    return True


async def delay(testbed: Testbed) -> None:
    """Delay everything, and split it into small pieces."""
    proxy = _proxy(testbed)
    proxy.delay, proxy.piece = DELAY, PIECE
    testbed.count += 1
    await testbed.last()
    proxy.delay = 0.0


def _proxy(testbed: Testbed) -> Proxy:
    assert testbed.proxy is not None
    return testbed.proxy


PROXIED = Setup(lease=LONG, proxied=True)
FAULTS = (
    Fault("cut", "connections cut", repeated(cut, 0.1, 0.4), (REDIS,), PROXIED),
    Fault("half-open", "connections half-open", repeated(swallow, 0.3, 0.6), (REDIS,), PROXIED),
    Fault("mute", "replies lost", repeated(mute, 0.2, 0.5), (REDIS,), PROXIED),
    Fault("slow", "a slow line", delay, (REDIS,), PROXIED),
)
