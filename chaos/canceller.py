"""A worker that cancels its own calls at random moments, on the bare contract of a backend.

It takes the place of `abe-router serve`: the same arguments, the same handlers, and it tells its outcomes
in the same words.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from abe_router import Backend, Delivery, make_backend
from abe_router.backend import Acked, Subscription
from abe_router.config.building.loader import Loader
from abe_router.messages.message import decode
from abe_router.routing.route import Route

T = TypeVar("T")

#: How often a call is cancelled, and after how many seconds at most.
CANCELLED, AFTER = 0.5, 0.01
#: How many messages are asked for at once, and for how long, in seconds.
LIMIT, WAIT = 8, 0.5


class Canceller:
    """Consumes one route until it is stopping."""

    def __init__(self, backend: Backend, route: Route) -> None:
        self._backend, self._route = backend, route
        self._rng = random.Random(f"{os.environ['CHAOS_SEED']}/{route.name}")

    async def run(self, stopping: asyncio.Event) -> None:
        """Fetch, handle, settle; each call may be cancelled, and is made again then."""
        route = self._route
        subscription = await self._backend.subscribe(route.key, route.group, lease=route.lease)
        while not stopping.is_set():
            deliveries = await self._until_done(partial(subscription.fetch, LIMIT, WAIT))
            await asyncio.gather(*(self._handle(subscription, delivery) for delivery in deliveries))
        await subscription.close()

    async def _handle(self, subscription: Subscription, delivery: Delivery) -> None:
        message, handler, emit = delivery.message, self._route.handler, self._route.emit
        arguments = decode(message.body), message
        answer = (
            await handler.call(*arguments)
            if handler.is_async
            else await asyncio.to_thread(handler.call, *arguments)
        )
        outputs = (emit.message(message, answer),) if emit and answer is not None else ()
        await self._until_done(partial(subscription.extend, [delivery]))
        settle = partial(subscription.settle, [(delivery, Acked(outputs))])
        if not await self._until_done(settle):
            tell("handled", route=self._route.name, message_id=message.id, attempt=message.attempt)

    async def _until_done(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what a call returns, making it again whenever it was cancelled before it had."""
        while True:
            calling = asyncio.ensure_future(call())
            if self._rng.random() < CANCELLED:
                await asyncio.wait([calling], timeout=self._rng.uniform(0, AFTER))
                calling.cancel()
            await asyncio.wait([calling])
            if not calling.cancelled():
                return calling.result()
            tell("cancelled")


def tell(event: str, **values: Any) -> None:
    """Write a line as the log of a worker has it."""
    moment = datetime.now(UTC).isoformat()
    print(json.dumps({"ts": moment, "level": "debug", "event": event, **values}), file=sys.stderr, flush=True)


async def main(routes: Path) -> None:
    """Consume every route of a file until SIGTERM."""
    table = Loader(routes).load()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    async with make_backend(table.backend, prefix=table.prefix) as backend, asyncio.TaskGroup() as running:
        for route in table.routes:
            running.create_task(Canceller(backend, route).run(stopping))
        tell("reloaded")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[2])))
