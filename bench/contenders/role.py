"""The roles of all contenders, on top of their ways to publish."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import cycle, islice
from typing import Any

from bench.spec import Spec
from bench.tally import sent_now

#: Number of concurrent callers.
CALLERS = 500
#: Number of messages that a caller publishes between checks of the clock.
CHECK_INTERVAL = 10

Item = tuple[str, Any]  # a key and a payload
SendAll = Callable[[Sequence[Item]], Awaitable[None]]


class Publisher:
    """The ways in which a contender publishes; each payload is checked and encoded for each message.

    `callers` is the number of concurrent callers with the best result.
    """

    #: Publish many messages of one caller in one call, and wait for the acceptance; None without such an API.
    batch: SendAll | None = None
    #: The same without knowledge of the server; None if callers publish one by one.
    pipeline: SendAll | None = None
    callers = CALLERS

    async def one(self, key: str, payload: Any) -> None:
        """Publish one message and wait for its acceptance."""
        raise NotImplementedError


Connect = Callable[[Spec], AbstractAsyncContextManager[Publisher]]


def main(connect: Connect, work: Callable[[Spec], None]) -> None:
    """Run the role that the command line names."""
    spec, role = Spec.received(), sys.argv[1]
    if role == "work":
        work(spec)
        return
    roles = {"publish": _publish, "fill": fill, "pace": pace}
    run(_connected(connect, roles[role], spec), spec)


def run(main: Awaitable[None], spec: Spec) -> None:
    """Run a coroutine, on uvloop if it is installed and `spec` allows it."""
    with asyncio.Runner(loop_factory=_loop_factory(spec)) as runner:
        runner.run(main)  # type: ignore[arg-type]


def _loop_factory(spec: Spec) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if not spec.uvloop:
        return None
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _connected(
    connect: Connect, role: Callable[[Publisher, Spec], Awaitable[None]], spec: Spec
) -> None:
    async with connect(spec) as publisher:
        await role(publisher, spec)


async def _publish(publisher: Publisher, spec: Spec) -> None:
    """Publish for a time in each way, and print the rates per second."""
    items = list(islice(zip(cycle(spec.keys), cycle(spec.payloads.values)), spec.batch))
    rates = {"one": await _by_callers(publisher, items, 1, spec.seconds)}
    if publisher.pipeline is not None:
        rates["many"] = await _in_batches(publisher.pipeline, items, spec.seconds)
    else:
        callers = min(publisher.callers, spec.batch)
        rates["many"] = await _by_callers(publisher, items, callers, spec.seconds)
    if publisher.batch is not None:
        rates["batch"] = await _in_batches(publisher.batch, items, spec.seconds)
    print(json.dumps(rates))


async def _by_callers(publisher: Publisher, items: Sequence[Item], count: int, seconds: float) -> float:
    """Run `count` callers that each publish one message after another."""
    sent, began = 0, time.perf_counter()
    until = began + seconds

    async def call(number: int) -> None:
        nonlocal sent
        mine = islice(cycle(items), number, None)
        while time.perf_counter() < until:
            for key, payload in islice(mine, CHECK_INTERVAL):
                await publisher.one(key, payload)
            sent += CHECK_INTERVAL

    await asyncio.gather(*map(call, range(count)))
    return sent / (time.perf_counter() - began)


async def _in_batches(send: SendAll, items: Sequence[Item], seconds: float) -> float:
    """Publish all items in one call, again and again."""
    sent, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        await send(items)
        sent += len(items)
    return sent / took


async def fill(publisher: Publisher, spec: Spec) -> None:
    """Publish the messages as fast as possible."""
    items = islice(zip(cycle(spec.keys), cycle(spec.payloads.values)), spec.count)
    while batch := list(islice(items, spec.batch)):
        if publisher.batch is not None:
            await publisher.batch(batch)
            continue
        for first in range(0, len(batch), publisher.callers):
            part = batch[first : first + publisher.callers]
            await asyncio.gather(*(publisher.one(key, payload) for key, payload in part))


async def pace(publisher: Publisher, spec: Spec) -> None:
    """Publish at the rate; each payload carries its send time and the number of its key."""
    loop = asyncio.get_running_loop()
    pairs = zip(cycle(spec.keys), cycle(spec.payloads.values))
    began = loop.time()
    for number, (key, payload) in enumerate(islice(pairs, int(spec.rate * spec.seconds))):
        ahead = began + number / spec.rate - loop.time()
        if ahead > 0:
            await asyncio.sleep(ahead)
        await publisher.one(key, {**payload, "sent": sent_now(number % spec.routes)})
