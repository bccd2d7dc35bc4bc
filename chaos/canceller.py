"""A worker that cancels its own calls at random moments, directly on the contract of a backend.

It replaces `abe-router serve`: it has the same arguments and handlers, and logs outcomes in the same format.
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

#: Share of calls that are cancelled, and the longest time before that, in seconds.
CANCELLED, AFTER = 0.5, 0.01
#: Limit and wait, in seconds, of each fetch.
LIMIT, WAIT = 8, 0.5


class Canceller:
    """Consumes one route until `stopping` is set."""

    def __init__(self, backend: Backend, route: Route) -> None:
        self._backend, self._route = backend, route
        self._rng = random.Random(f"{os.environ['CHAOS_SEED']}/{route.name}")

    async def run(self, stopping: asyncio.Event) -> None:
        """Fetch, handle and settle; a cancelled call is repeated."""
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
            log("handled", route=self._route.name, message_id=message.id, attempt=message.attempt)

    async def _until_done(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return the result of a call; repeat the call as often as it is cancelled before it returns."""
        while True:
            calling = asyncio.ensure_future(call())
            if self._rng.random() < CANCELLED:
                await asyncio.wait([calling], timeout=self._rng.uniform(0, AFTER))
                calling.cancel()
            await asyncio.wait([calling])
            if not calling.cancelled():
                return calling.result()
            log("cancelled")


def log(event: str, **values: Any) -> None:
    """Write a line in the format of a worker's log."""
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
        log("reloaded")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[2])))
