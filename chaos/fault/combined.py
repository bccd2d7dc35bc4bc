"""Everything at once."""

from __future__ import annotations

import asyncio

from chaos.fault import network, process, redis, sqlite
from chaos.fault.fault import REDIS, SQLITE, Blow, Fault
from chaos.fault.reload import Editor, edit
from chaos.plan import BLOCKING, EXITING, FAILING
from chaos.stage import Setup, Stage

#: What may happen to either, and what to one of them.
_PROCESSES: tuple[Blow, ...] = (process.kill, process.term, process.freeze, process.kill_producer)
_BLOWS: dict[str, tuple[Blow, ...]] = {
    SQLITE: (*_PROCESSES, sqlite.lock),
    REDIS: (*_PROCESSES, redis.crash, network.cut, network.swallow, network.mute),
}


def everything(backend: str) -> Blow:
    """Return what deals blows in random order, two at a time, while the file is edited."""

    async def strike(stage: Stage) -> None:
        async for _ in stage.moments(0.2, 0.6):
            await stage.rng.choice(_BLOWS[backend])(stage)

    async def run(stage: Stage) -> None:
        editor = Editor(stage)
        async with asyncio.TaskGroup() as striking:
            for _ in range(2):
                striking.create_task(strike(stage))
            async for _ in stage.moments(0.3, 1.0):
                await edit(stage, editor)
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
