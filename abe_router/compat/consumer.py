"""`AsyncLoopConsumer`, the consumer of the guide: one handler, one group, and an explicit end."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import Any, Self

from abe_router.backend import Backend
from abe_router.backends.abstract import DEFAULT_GROUP, AbstractBackend, MessageQueue, is_abstract
from abe_router.consumer import Consumer, as_async
from abe_router.errors import KeyInvalid
from abe_router.messages.message import Message
from abe_router.messages.pattern import is_group, is_pattern
from abe_router.messages.pointer import is_pointer
from abe_router.observe.events import Events
from abe_router.observe.logs import log_listener
from abe_router.observe.tracing import Tracing
from abe_router.routing.handler import handler_from
from abe_router.routing.policies import RetryPolicy
from abe_router.routing.route import Route
from abe_router.runtime.threads import Threads

_log = logging.getLogger(__name__)

#: A handler takes the payload, or the payload and its Message, and may be async.
HandlerFunction = Callable[[Any], Any] | Callable[[Any, Message], Any]

#: The consumer whose handler runs in this context.
_running_in: ContextVar[AsyncLoopConsumer | None] = ContextVar("running_in", default=None)


class AsyncLoopConsumer:
    """Passes the messages of a group to a handler until it is shut down.

    Args:
        backend: One of our backends, or any object with the `publish` and `consume` of Abstract Backend. Such
            an object reports neither the key of a message nor whether it was handled. A failed message is
            then logged and lost, and `key` and `order_by` are not available.
        group: The group; `default` if None.
        key: A routing key or a pattern.
        concurrency: How many messages are handled at the same time.
        timeout: Seconds that one attempt may take.
        retry: When a message whose handler raised is tried again; after the last attempt it becomes a dead
            letter.
        drain: Seconds that `shutdown` gives the running handlers.
        order_by: A JSON pointer. Messages with the same value there are handled in order.

    """

    def __init__(
        self,
        backend: Backend | MessageQueue,
        group: str | None = None,
        *,
        key: str = "#",
        concurrency: int = 1,
        timeout: float = math.inf,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008  a frozen value
        drain: float = 30.0,
        order_by: str | None = None,
    ) -> None:
        if not is_pattern(key):
            raise KeyInvalid(f"`{key[:80]}` is neither a routing key nor a pattern")
        if group is not None and not is_group(group):
            raise ValueError(f"`{group[:80]}` is not a group: letters, digits and _.:-")
        if not isinstance(concurrency, int) or concurrency < 1:
            raise ValueError(f"concurrency is a whole number, at least 1, not {concurrency!r}")
        if not timeout > 0:
            raise ValueError(f"timeout is a number of seconds above 0, not {timeout!r}")
        if not isinstance(retry, RetryPolicy):
            raise TypeError(f"retry is a RetryPolicy, not {type(retry).__name__}")
        self.backend, self.group = backend, group
        if order_by is not None and not is_pointer(order_by):
            raise ValueError(f"`{order_by[:80]}` is not a JSON pointer, such as `/customer/id`")
        self._source = _source(backend, self._end, key)
        if order_by is not None and not self._source.features.order:
            raise ValueError(f"{type(backend).__name__} keeps no order: `order_by` needs another backend")
        self._route = partial(
            Route,
            key,
            group or DEFAULT_GROUP,
            concurrency=concurrency,
            timeout=timeout,
            retry=retry,
            drain=drain,
            order_by=order_by,
        )
        self._called: tuple[Callable[..., Awaitable[Any]], bool] | None = None
        self._consumer: Consumer | None = None
        self._running: asyncio.Task[None] | None = None
        self._stopped = False

    async def run(self, handler: HandlerFunction) -> None:
        """Consume until `shutdown` is called, or until a provider for Abstract Backend ends its messages.

        `handler` takes the payload and, if it has a second parameter, the Message. A plain function runs in a
        thread. Return at once if it runs already or was shut down. Cancelling `run` stops the handler as
        well, and its message comes back. Raise HandlerError if the handler does not have such parameters.
        """
        if self._stopped or self._running is not None:
            return
        plain = handler_from(handler)
        wrapped = replace(plain, call=self._enter, is_async=True, wants_message=True)
        route, events = self._route(wrapped), Events([log_listener(logging.INFO)])
        threads = Threads(route.concurrency, route.name)
        self._called = as_async(plain, threads), plain.wants_message
        consumer = self._consumer = Consumer(
            route, self._source, events, revision="", threads=threads, tracing=Tracing.if_set_up()
        )
        running = self._running = asyncio.create_task(consumer.run())
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            consumer.stop(0.0)
            await asyncio.wait({running})
            raise
        except Exception:
            _log.exception("%s: the consumer failed", route.name)
            raise
        finally:
            running.cancel()
            threads.shutdown()
            self._running = self._consumer = None

    async def handler(self, payload: Any, message: Message) -> Any:
        """Handle one message with the handler that was passed to `run`.

        Override it to wrap the handler. An error of this method is an error of the handler: after `Reject`,
        the message becomes a dead letter at once; after any other error, it is tried again.
        """
        if self._called is None:
            raise RuntimeError("there is no handler before `run`")
        call, wants_message = self._called
        return await (call(payload, message) if wants_message else call(payload))

    async def shutdown(self) -> None:
        """Stop consuming, and wait until the running handlers have ended or the drain time is over.

        Idempotent. It may be called by any coroutine of the loop, also before `run`, which then returns at
        once. A call by the handler itself does not wait, because it would wait for itself.
        """
        self._end()
        if self._running is not None and _running_in.get() is not self:
            await asyncio.wait({self._running})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shutdown()

    def _end(self) -> None:
        self._stopped = True
        if self._consumer is not None:
            self._consumer.stop()

    async def _enter(self, payload: Any, message: Message) -> Any:
        token = _running_in.set(self)
        try:
            return await self.handler(payload, message)
        finally:
            _running_in.reset(token)


def _source(backend: Backend | MessageQueue, on_end: Callable[[], None], key: str) -> Backend:
    """Return the backend itself, or an adapter of a provider for Abstract Backend."""
    if isinstance(backend, Backend):
        return backend
    name = type(backend).__name__
    if not is_abstract(backend):
        raise TypeError(f"{name} is not a backend: it has no `publish` and `consume`")
    if key != "#":
        raise ValueError(f"{name} does not report the key of a message: `key` needs a backend of abe-router")
    return AbstractBackend(backend, name, on_end=on_end, lent=True)
