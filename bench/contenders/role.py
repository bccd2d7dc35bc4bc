"""What every contender does in the same way, once it can send one message and many."""

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

#: How many callers publish at once, and how many messages make a batch.
CALLERS = WAVE = 500
#: How many messages a caller sends between looks at the clock.
LOOK = 10

Item = tuple[str, Any]  # a key and a payload
SendAll = Callable[[Sequence[Item]], Awaitable[None]]


class Publisher:
    """One contender's ways to send; each payload is checked and encoded for each message anew.

    `callers` is how many callers at once suit it best.
    """

    #: Send what one caller has at hand in one go, and wait until it is kept; None where there is no such way.
    batch: SendAll | None = None
    #: The same with less knowledge of the server; None where callers send one by one.
    pipeline: SendAll | None = None
    callers = CALLERS

    async def one(self, key: str, payload: Any) -> None:
        """Send one message and wait until it is kept."""
        raise NotImplementedError


Connect = Callable[[Spec], AbstractAsyncContextManager[Publisher]]


def main(connect: Connect, work: Callable[[Spec], None]) -> None:
    """Do what the command line names."""
    spec, role = Spec.received(), sys.argv[1]
    if role == "work":
        work(spec)
        return
    roles = {"publish": _publish, "fill": fill, "pace": pace}
    run(_connected(connect, roles[role], spec), spec)


def run(main: Awaitable[None], spec: Spec) -> None:
    """Run a coroutine, on uvloop where it is installed and wanted."""
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
    """Send for a time in each way, and print how many a second."""
    items = list(islice(zip(cycle(spec.keys), cycle(spec.payloads.values)), WAVE))
    rates = {"one": await _by_callers(publisher, items, 1, spec.seconds)}
    if publisher.pipeline is not None:
        rates["many"] = await _in_waves(publisher.pipeline, items, spec.seconds)
    else:
        rates["many"] = await _by_callers(publisher, items, publisher.callers, spec.seconds)
    if publisher.batch is not None:
        rates["batch"] = await _in_waves(publisher.batch, items, spec.seconds)
    print(json.dumps(rates))


async def _by_callers(publisher: Publisher, items: Sequence[Item], count: int, seconds: float) -> float:
    """Have so many callers send one message after the other."""
    sent, began = 0, time.perf_counter()
    until = began + seconds

    async def call(number: int) -> None:
        nonlocal sent
        mine = islice(cycle(items), number, None)
        while time.perf_counter() < until:
            for key, payload in islice(mine, LOOK):
                await publisher.one(key, payload)
            sent += LOOK

    await asyncio.gather(*map(call, range(count)))
    return sent / (time.perf_counter() - began)


async def _in_waves(send: SendAll, items: Sequence[Item], seconds: float) -> float:
    """Have one caller send all items at once, again and again."""
    sent, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        await send(items)
        sent += len(items)
    return sent / took


async def fill(publisher: Publisher, spec: Spec) -> None:
    """Put the messages in place, as fast as can be."""
    items = islice(zip(cycle(spec.keys), cycle(spec.payloads.values)), spec.count)
    while wave := list(islice(items, WAVE)):
        if publisher.batch is not None:
            await publisher.batch(wave)
            continue
        for first in range(0, len(wave), publisher.callers):
            part = wave[first : first + publisher.callers]
            await asyncio.gather(*(publisher.one(key, payload) for key, payload in part))


async def pace(publisher: Publisher, spec: Spec) -> None:
    """Send at the rate; each payload says when it was about to be sent, and under which key."""
    loop = asyncio.get_running_loop()
    pairs = zip(cycle(spec.keys), cycle(spec.payloads.values))
    began = loop.time()
    for number, (key, payload) in enumerate(islice(pairs, int(spec.rate * spec.seconds))):
        ahead = began + number / spec.rate - loop.time()
        if ahead > 0:
            await asyncio.sleep(ahead)
        await publisher.one(key, {**payload, "sent": sent_now(number % spec.routes)})
