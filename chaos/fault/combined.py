"""Everything at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from chaos.fault import network, process, redis, sqlite
from chaos.fault.fault import REDIS, SQLITE, Fault, Injection
from chaos.fault.reload import Editor, edit
from chaos.plan import BLOCKING, EXITING, FAILING
from chaos.stage import Setup, Stage

#: What may happen to either, and what to one of them.
_PROCESSES: tuple[Injection, ...] = (process.kill, process.term, process.freeze, process.kill_producer)
_INJECTIONS: dict[str, tuple[Injection, ...]] = {
    SQLITE: (*_PROCESSES, sqlite.lock),
    REDIS: (*_PROCESSES, redis.crash, network.cut, network.swallow, network.mute),
}


def everything(backend: str) -> Callable[[Stage], Awaitable[None]]:
    """Return what deals blows in random order, two at a time, while the file is edited."""

    async def strike(stage: Stage) -> None:
        async for _ in stage.moments(0.2, 0.6):
            stage.count += await stage.rng.choice(_INJECTIONS[backend])(stage)

    async def run(stage: Stage) -> None:
        editor = Editor(stage)
        async with asyncio.TaskGroup() as striking:
            for _ in range(2):
                striking.create_task(strike(stage))
            async for _ in stage.moments(0.3, 1.0):
                stage.count += await edit(stage, editor)
        await editor.last(stage.scene)

    return run


_MIX = {**FAILING, **BLOCKING, **EXITING}
FAULTS = (
    Fault(
        "all",
        "all of it, at random",
        everything(SQLITE),
        (SQLITE,),
        Setup(mix=_MIX, workers=3),
        doubles=True,
        exits=True,
    ),
    Fault(
        "all",
        "all of it, at random",
        everything(REDIS),
        (REDIS,),
        Setup(mix=_MIX, workers=3, proxied=True),
        doubles=True,
        exits=True,
    ),
)
