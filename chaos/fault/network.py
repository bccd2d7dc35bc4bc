"""What happens between the router and Redis; all of it is over before a lease is."""

from __future__ import annotations

import asyncio

from chaos.fault.fault import REDIS, Fault, repeated
from chaos.proxy import Proxy
from chaos.storage import ANSWER_TIMEOUT
from chaos.testbed import LONG, Setup, Testbed

#: Until when a dead connection has been noticed and replaced, in seconds.
DETECTION_TIME = 1.5 * ANSWER_TIMEOUT + 0.5
#: How long nobody is let in, and how long replies are lost, in seconds.
CLOSED_TIME, MUTE_TIME = (0.1, 0.6), (0.02, 0.2)
#: How long each piece takes, in seconds, and its greatest size in bytes, on a bad line.
DELAY, PIECE = 0.03, 1024


async def cut(testbed: Testbed) -> bool:
    """Reset all connections, and sometimes let nobody in for a while."""
    proxy = _proxy(testbed)
    with testbed.injecting():
        proxy.open = testbed.rng.random() < 0.5
        proxy.cut()
        if not proxy.open:
            await asyncio.sleep(testbed.rng.uniform(*CLOSED_TIME))
            proxy.open = True
    return True


async def swallow(testbed: Testbed) -> bool:
    """Let all connections carry nothing any more, and look alive."""
    with testbed.injecting():
        _proxy(testbed).swallow()
        await asyncio.sleep(DETECTION_TIME)
    return True


async def mute(testbed: Testbed) -> bool:
    """Let through what is asked, and not what is answered; then cut."""
    proxy = _proxy(testbed)
    with testbed.injecting():
        proxy.mute()
        await asyncio.sleep(testbed.rng.uniform(*MUTE_TIME))
        proxy.cut()
    return True


async def delay(testbed: Testbed) -> None:
    """Carry everything late, and in pieces."""
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
