"""What a thousand routes cost on Redis, counted in commands."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from abe_router.backends import make_backend
from abe_router.backends.redis.protocol import RedisProtocol
from abe_router.messages.message import new_message
from abe_router.observe.events import Events
from abe_router.routing.table import RouteTable
from abe_router.runtime.reconciler import Reconciler
from abe_router.runtime.retention import RetentionLoop

from .conftest import make_route, within

ROUTES = 1_000
#: Most commands for each idle second, and besides. Ten calls look for what is due, in a hundred streams each;
#: others look for gaps and new keys every few seconds.
A_SECOND, ONCE = 30, 60


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Counter[object]:
    """Count the commands of this process, by name, and its scripts."""
    counted: Counter[object] = Counter()
    send, run = RedisProtocol.send, RedisProtocol.run

    def counting_send(protocol, *args):
        counted[args[0]] += 1
        return send(protocol, *args)

    def counting_run(protocol, script, keys, args=()):
        counted[script.sha] += 1
        return run(protocol, script, keys, args)

    monkeypatch.setattr(RedisProtocol, "send", counting_send)
    monkeypatch.setattr(RedisProtocol, "run", counting_run)
    return counted


@pytest.mark.parametrize("url", ["redis"], indirect=True)
async def test_a_thousand_idle_routes_send_few_commands(url: str, commands: Counter[object]) -> None:
    handled = asyncio.Queue[int]()

    async def handle(payload: int) -> None:
        handled.put_nowait(payload)

    keys = [f"orders.r{number}" for number in range(ROUTES)]
    backend = make_backend(url)
    # A trim looks at each stream, every ten seconds. It is not counted.
    router = Reconciler(backend, Events(), retention=RetentionLoop(backend, first=3600.0))
    await router.apply(RouteTable(routes=tuple(make_route(handle, key=key) for key in keys)))
    async with within():
        await backend.append([new_message(key, b"1") for key in keys])
        for _ in keys:
            await handled.get()
        while any(consumer.in_flight for consumer in router.consumers.values()):
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)  # the last fetches begin to wait
    commands.clear()
    began = time.monotonic()
    await asyncio.sleep(1.2)
    idle, seconds = commands.total(), time.monotonic() - began
    await router.stop(drain=0)
    await backend.close()
    assert idle < ONCE + A_SECOND * seconds, commands.most_common(5)
