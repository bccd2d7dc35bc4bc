"""How one route tries its deliveries."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from contextvars import copy_context
from functools import partial
from math import inf
from typing import Any

from abe_router.backend import Delivery, Reason
from abe_router.consumer.disposition import HANDLED, Disposition, DispositionPolicy
from abe_router.consumer.filter import Filter
from abe_router.consumer.fork import calls_handlers, contain_forks, end_forked_child
from abe_router.consumer.slot import Slot
from abe_router.errors import BatchMismatch
from abe_router.observe.tracing import NO_SPAN, AttemptSpan, Tracing
from abe_router.routing.handler import Handler
from abe_router.routing.route import Route
from abe_router.schema import TextMask
from abe_router.text import format_duration

_log = logging.getLogger(__name__)

#: Makes a context manager in which the handler is called for these deliveries: one, or those of a batch.
Around = Callable[[Sequence[Delivery]], AbstractAsyncContextManager[None]]


class Attempts:
    """Checks a delivery, calls the handler, and returns what the attempt comes to.

    `threads` runs plain handlers; the `timeout` of a call begins when its thread makes it. `around` makes a
    context manager for each call of the handler. It is entered in the task of the handler, so that context
    variables it sets are seen by the handler, by a plain one in its thread too. It runs within the `timeout`.
    What it raises, before or after, is a failure of the handler; what it suppresses is a success without an
    answer. `tracing` makes a span round the call for messages that are traced.
    """

    def __init__(
        self,
        route: Route,
        policy: DispositionPolicy,
        *,
        threads: Executor,
        around: Around | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._route, self._policy, self._around = route, policy, around
        self._check, self._is_brief = Filter(route, policy).check, policy.is_brief
        #: Whether each call that returns was `HANDLED`, so that `finish` need not be called.
        self.is_brief = policy.is_brief and tracing is None
        self._timeout, self._wants_message = route.timeout, route.handler.wants_message
        self._is_plain = not route.handler.is_async
        self._handler = contain_forks(route.handler.call) if self._is_plain else route.handler.call
        #: Whether the handler is awaited as it is: no thread, and nothing around it.
        self._is_direct = around is None and not self._is_plain
        self._threads, self._reported_thread = threads, False
        self._tracing, self._wants_span = tracing, None if tracing is None else tracing.wants

    # An attempt is three calls, `start`, `finish` and `fail`, because one that awaits the handler would take
    # longer for that than for all the rest.

    def start(self, slot: Slot, delivery: Delivery, now: float) -> Disposition | Awaitable[Any]:
        """Check a delivery; return the call of its handler, or what the delivery comes to without a call.

        The caller awaits the call in the task of `slot`, passes what it returns to `finish` or what it raises
        to `fail`, and ends the slot. `now` is the loop's time.
        """
        checked = self._check(delivery)
        if isinstance(checked, Disposition):
            return checked
        arguments = (checked[0], delivery.message) if self._wants_message else checked
        slot.begin((delivery,), now + self._timeout)
        if self._wants_span is not None and self._wants_span(delivery.message.headers):
            return self._call_traced(slot, delivery, arguments)
        if not self._is_direct:
            return self._call(slot, (delivery,), arguments)
        try:
            call: Awaitable[Any] = self._handler(*arguments)
        except BaseException as error:  # noqa: BLE001  its parameters do not fit
            slot.end()
            return self.fail(slot, delivery, error)
        return call

    def finish(self, delivery: Delivery, answer: Any, began_at: float) -> Disposition:
        """Return what a call comes to that has returned `answer`."""
        if isinstance(answer, Disposition):  # of a call in a span
            return answer
        if self._is_brief:
            return HANDLED
        return self._policy.handled(delivery, answer, asyncio.get_running_loop().time() - began_at)

    def fail(self, slot: Slot, delivery: Delivery, error: BaseException) -> Disposition:
        """Return what a call comes to that has raised `error`.

        Raise only CancelledError when the slot is cancelled for good, and what ends the event loop.
        """
        return self._policy.failed(delivery, self._failure(slot, error))

    async def _call_traced(self, slot: Slot, delivery: Delivery, arguments: tuple[Any, ...]) -> Disposition:
        """Call the handler in a span; return what the call comes to."""
        began_at = asyncio.get_running_loop().time()
        with self._span((delivery,)) as span:
            try:
                answer = await self._call_in_span(slot, (delivery,), arguments)
            except BaseException as error:  # noqa: BLE001  SystemExit too: a handler must not end the router
                disposition = self.fail(slot, delivery, error)
            else:
                seconds = asyncio.get_running_loop().time() - began_at
                disposition = self._policy.handled(delivery, answer, seconds, span.headers)
            span.end_with((disposition.event,))
        return disposition

    def _span(self, deliveries: Sequence[Delivery]) -> AbstractContextManager[AttemptSpan]:
        """Return the span of a call for these deliveries."""
        assert self._tracing is not None
        route = self._route
        return self._tracing.processing(
            route.key,
            route.group,
            [each.message for each in deliveries],
            is_batch=route.batch is not None,
            is_replay=any(each.replays for each in deliveries),
        )

    @calls_handlers()
    async def _call_in_span(
        self, slot: Slot, deliveries: Sequence[Delivery], arguments: tuple[Any, ...]
    ) -> Any:
        """Call the handler as `_call` does; a forked child ends before it leaves the span."""
        try:
            return await self._call(slot, deliveries, arguments)
        except BaseException as error:
            end_forked_child(error)
            raise

    @calls_handlers()
    async def run_batch(self, slot: Slot, deliveries: Sequence[Delivery], now: float) -> list[Disposition]:
        """Try deliveries together; return a disposition for each, in their order. Raise as `run` does.

        The handler gets the list of payloads and, if it has a second parameter, the list of messages. When
        it returns a list, each item is the answer for one message: an exception, such as a `Reject` or
        `Retry`, is that message's failure, anything else its success.
        """
        checked = [self._check(delivery) for delivery in deliveries]
        dispositions = [
            item._replace(called=False) if isinstance(item, Disposition) else HANDLED for item in checked
        ]
        passed = [index for index, item in enumerate(checked) if not isinstance(item, Disposition)]
        if not passed:
            return dispositions
        payloads = [item[0] for item in checked if not isinstance(item, Disposition)]
        batch = [deliveries[index] for index in passed]
        arguments = (payloads, [each.message for each in batch]) if self._wants_message else (payloads,)
        answers: Sequence[Any] = [None] * len(passed)
        wants = self._wants_span
        is_traced = wants is not None and any(wants(each.message.headers) for each in batch)
        with self._span(batch) if is_traced else nullcontext(NO_SPAN) as span:
            slot.begin(deliveries, now + self._timeout)
            try:
                answer = await self._call_in_span(slot, batch, arguments)
            except BaseException as error:  # noqa: BLE001  as in `run`
                answers = [self._failure(slot, error)] * len(passed)
            else:
                if isinstance(answer, list | tuple):
                    answers = answer
            finally:
                slot.end()
            seconds = asyncio.get_running_loop().time() - now
            if len(answers) != len(passed):
                text = f"the handler answered for {len(answers)} messages of {len(passed)}"
                answers = [BatchMismatch(text)] * len(passed)
            mask: TextMask | None = None
            for index, answer in zip(passed, answers, strict=True):
                if self._is_brief and not isinstance(answer, BaseException | Reason):
                    continue
                mask = mask or self._policy.mask_of(batch)  # an error may quote any of them
                if isinstance(answer, BaseException | Reason):
                    dispositions[index] = self._policy.failed(deliveries[index], answer, mask)
                else:
                    dispositions[index] = self._policy.handled(
                        deliveries[index], answer, seconds, span.headers, mask
                    )
            span.end_with([dispositions[index].event for index in passed])
        return dispositions

    async def _call(self, slot: Slot, deliveries: Sequence[Delivery], arguments: tuple[Any, ...]) -> Any:
        if self._around is None:
            return await self._call_handler(slot, arguments)
        async with self._around(deliveries):
            try:
                return await self._call_handler(slot, arguments)
            except BaseException as error:
                end_forked_child(error)  # before the context manager is left
                raise

    async def _call_handler(self, slot: Slot, arguments: tuple[Any, ...]) -> Any:
        """Call the handler; the time of a plain one begins when a thread makes the call."""
        handler, limit = self._handler, self._timeout
        if not self._is_plain:
            return await handler(*arguments)
        deadline, offset = slot.wait_for_thread(), asyncio.get_running_loop().time() - time.monotonic()

        def call() -> Any:
            deadline[0] = time.monotonic() + offset + limit
            try:
                result = handler(*arguments)
            except BaseException:
                deadline[0] = inf
                raise
            if not asyncio.iscoroutine(result):
                deadline[0] = inf  # it was in time, however late a blocked loop learns that
            return result

        return await _run_in_thread(self._threads, call)

    def _failure(self, slot: Slot, error: BaseException) -> BaseException | Reason:
        """Return the failure that `error` means; raise it when it is not the handler's."""
        end_forked_child(error)
        if isinstance(error, KeyboardInterrupt) and self._is_ctrl_c():
            raise error
        if isinstance(error, GeneratorExit) and not slot.is_current:
            raise error  # the loop was closed, and with it this coroutine
        if not isinstance(error, asyncio.CancelledError):
            return error
        if slot.cancelled:
            raise error
        if slot.timed_out:
            return self._timeout_reason()
        return Reason("failed", "CancelledError", "the handler was cancelled from within")

    def _is_ctrl_c(self) -> bool:
        """Return whether a KeyboardInterrupt may be Python's own, which ends the program.

        `serve` has its own handler of SIGINT, and Python's raises in the main thread alone.
        """
        return self._route.handler.is_async and signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def _timeout_reason(self) -> Reason:
        route = self._route
        text = f"the handler ran longer than {format_duration(route.timeout)}"
        if not route.handler.is_async:
            text += "; its thread cannot be stopped and may still be running"
            if not self._reported_thread:
                self._reported_thread = True
                _log.warning(
                    "%s: a call of `%s` runs longer than %s; its thread cannot be stopped and is replaced"
                    " (logged once)",
                    route.name,
                    route.handler.path,
                    format_duration(route.timeout),
                )
        return Reason("timeout", "TimeoutError", text)


def as_async(handler: Handler, threads: Executor) -> Callable[..., Awaitable[Any]]:
    """Return the handler as an async function; a plain one runs in a thread, with the caller's context."""
    if handler.is_async:
        return handler.call
    return partial(_run_in_thread, threads, contain_forks(handler.call))


async def _run_in_thread(threads: Executor, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a thread, with the caller's context; await the coroutine that it may return."""
    run = copy_context().run
    result = await asyncio.get_running_loop().run_in_executor(threads, run, function, *arguments)
    return await result if asyncio.iscoroutine(result) else result
