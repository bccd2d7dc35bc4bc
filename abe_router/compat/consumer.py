"""The consumer of the guide: one handler, one group, and an end that is told."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from dataclasses import replace
from functools import partial
from typing import Any, Self

from abe_router.backend import DEFAULT_GROUP, Backend
from abe_router.backends.abstract import AbstractBackend, MessageQueue, is_abstract
from abe_router.consumer import Consumer
from abe_router.errors import KeyInvalid
from abe_router.messages.message import Message
from abe_router.messages.pattern import is_group, is_pattern
from abe_router.messages.pointer import is_pointer
from abe_router.observe.events import Events
from abe_router.observe.logs import log_listener
from abe_router.routing.handler import Handler, handler_from
from abe_router.routing.policies import RetryPolicy
from abe_router.routing.route import Route
from abe_router.runtime.threads import Threads

_log = logging.getLogger(__name__)

#: What a handler may look like: it takes the payload, or the payload and its Message, and may be async.
HandlerFunction = Callable[[Any], Any] | Callable[[Any, Message], Any]

#: The consumer whose handler runs in this context.
_running_in: ContextVar[AsyncLoopConsumer | None] = ContextVar("running_in", default=None)


class AsyncLoopConsumer:
    """Hands the messages of a group to a handler, until it is shut down.

    `backend` is one of ours, or any object with the `publish` and `consume` of Abstract Backend; such an
    object tells neither keys nor whether a message was handled, so there a failed message is logged and
    gone, and `key` cannot narrow. `key` is a routing key or a pattern. `concurrency` messages are handled
    at once. A message whose handler raises is tried again as `retry` says and ends among the dead letters.
    `timeout` is the time, in seconds, that one attempt may take; `drain` is what `shutdown` gives the
    messages in hand. With `order_by`, a JSON pointer, those with the same value there are handled in order.
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
            raise ValueError(f"concurrency is a number of messages, at least 1, not {concurrency!r}")
        if not timeout > 0:
            raise ValueError(f"timeout is in seconds, and more than 0, not {timeout!r}")
        if not isinstance(retry, RetryPolicy):
            raise TypeError(f"retry is a RetryPolicy, not {type(retry).__name__}")
        self.backend, self.group = backend, group
        if order_by is not None and not is_pointer(order_by):
            raise ValueError(f"`{order_by[:80]}` is not a JSON pointer, such as `/customer/id`")
        self._source = _source(backend, self._end, key)
        if order_by is not None and not self._source.features.order:
            raise ValueError(f"{type(backend).__name__} keeps no order: `order_by` needs one of our backends")
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
        self._threads: Threads | None = None
        self._called: Handler | None = None
        self._consumer: Consumer | None = None
        self._running: asyncio.Task[None] | None = None
        self._stopped = False

    async def run(self, handler: HandlerFunction) -> None:
        """Consume until `shutdown` is called, or until a plain provider has no more messages.

        `handler` takes the payload and, if it has a second parameter, the Message; a plain function runs
        in a thread. Returns at once when it runs already or was shut down before. Cancelling it stops the
        handler too, and its message comes back. Raise HandlerError when the handler cannot be called so.
        """
        if self._stopped or self._running is not None:
            return
        self._called = handler_from(handler)
        wrapped = replace(self._called, call=self._enter, is_async=True, wants_message=True)
        route, events = self._route(wrapped), Events([log_listener(logging.INFO)])
        threads = self._threads = Threads(route.concurrency)
        consumer = self._consumer = Consumer(route, self._source, events, revision="", threads=threads)
        running = self._running = asyncio.create_task(consumer.run())
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            consumer.stop(0.0)
            await asyncio.wait({running})
            raise
        except Exception:
            _log.exception("the consumer of %s ended by an error", route.name)
            raise
        finally:
            running.cancel()
            threads.shutdown()
            self._running = self._consumer = None

    async def handler(self, payload: Any, message: Message) -> Any:
        """Handle one message: the wrapper around the handler that `run` was given.

        Override it to do more than call it. What this raises counts as the handler's failure: `Reject`
        sends the message to the dead letters at once, anything else has it tried again.
        """
        called = self._called
        if called is None:
            raise RuntimeError("there is no handler before `run`")
        arguments = (payload, message) if called.wants_message else (payload,)
        if called.is_async:
            return await called.call(*arguments)
        loop, call = asyncio.get_running_loop(), copy_context().run
        result = await loop.run_in_executor(self._threads, call, called.call, *arguments)
        return await result if inspect.isawaitable(result) else result

    async def shutdown(self) -> None:
        """Stop consuming, and wait until the messages in hand are finished or their time is over.

        Idempotent, from any coroutine of the loop, also before or without `run`, which then returns at
        once. Called by the handler itself it does not wait, for it would wait for itself.
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
    """Return the backend itself, or the adapter around a plain provider."""
    if isinstance(backend, Backend):
        return backend
    name = type(backend).__name__
    if not is_abstract(backend):
        raise TypeError(f"{name} is not a backend: it has no `publish` and `consume`")
    if key != "#":
        raise ValueError(f"{name} does not tell the key of a message: `key` needs a backend of abe-router")
    return AbstractBackend(backend, name, on_end=on_end, lent=True)
