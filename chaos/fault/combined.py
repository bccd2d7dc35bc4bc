"""Many faults at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from chaos.fault import network, process, redis, sqlite
from chaos.fault.fault import REDIS, SQLITE, Fault, Injection
from chaos.fault.reload import Editor, edit
from chaos.plan import BLOCKING, EXITING, FAILING
from chaos.testbed import Setup, Testbed

#: The injections of both backends, and those of each backend.
_PROCESSES: tuple[Injection, ...] = (process.kill, process.term, process.freeze, process.kill_producer)
_INJECTIONS: dict[str, tuple[Injection, ...]] = {
    SQLITE: (*_PROCESSES, sqlite.lock),
    REDIS: (*_PROCESSES, redis.crash, network.cut, network.swallow, network.mute),
}


def everything(backend: str) -> Callable[[Testbed], Awaitable[None]]:
    """Return a function that runs two random injections at a time while it edits the file."""

    async def strike(testbed: Testbed) -> None:
        async for _ in testbed.moments(0.2, 0.6):
            if await testbed.rng.choice(_INJECTIONS[backend])(testbed):
                testbed.count += 1

    async def run(testbed: Testbed) -> None:
        editor = Editor(testbed)
        async with asyncio.TaskGroup() as striking:
            for _ in range(2):
                striking.create_task(strike(testbed))
            async for _ in testbed.moments(0.3, 1.0):
                if await edit(testbed, editor):
                    testbed.count += 1
        await editor.last(testbed.routes_file)

    return run


_MIX = {**FAILING, **BLOCKING, **EXITING}
FAULTS = (
    Fault(
        "all",
        "all of it, at random",
        everything(SQLITE),
        (SQLITE,),
        Setup(mix=_MIX, workers=3),
        duplicates=True,
        exits=True,
    ),
    Fault(
        "all",
        "all of it, at random",
        everything(REDIS),
        (REDIS,),
        Setup(mix=_MIX, workers=3, proxied=True),
        duplicates=True,
        exits=True,
    ),
)
