"""One attempt: check a delivery, call the handler, and decide how it ends.

The decision is a value; the consumer carries it out. Nothing here talks to a backend.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

from abe_router.backend import ACKED, Acked, DeadLetter, Delayed, Delivery, Died, Outcome, Reason
from abe_router.errors import (
    BatchMismatch,
    PayloadMalformed,
    PayloadUnfit,
    PublishError,
    Reject,
    Retry,
    TooManyHops,
)
from abe_router.event import DeadLettered, Event, Handled, Retried, Skipped
from abe_router.message import decode
from abe_router.pattern import matches
from abe_router.retry import GiveUp
from abe_router.route import Route
from abe_router.schema import Schema

#: Longest traceback kept with a dead letter, in characters; the end says most, so the end is kept.
MAX_TRACEBACK = 8_000
#: Longest error message kept with a dead letter or told in an event, in characters.
MAX_MESSAGE = 1_000
#: Keys whose schemas are remembered by a route on a pattern.
_REMEMBERED = 10_000


class Verdict(NamedTuple):
    """How a delivery ends, and what to tell once it has."""

    outcome: Outcome
    event: Event | None = None


_HANDLED = Verdict(ACKED)


class Worker:
    """A place in a consumer's pool: what it runs, until when, and whether its time ran out."""

    __slots__ = ("deadline", "deliveries", "task", "timed_out")

    def __init__(self) -> None:
        self.deliveries: Sequence[Delivery] = ()
        self.deadline = 0.0
        self.timed_out = False
        self.task: asyncio.Task[None] | None = None

    def begin(self, deliveries: Sequence[Delivery], deadline: float) -> None:
        """Note what is being handled, and until when by the loop's clock it may be."""
        self.deliveries, self.deadline, self.timed_out = deliveries, deadline, False

    def end(self) -> None:
        """Note that it is not being handled any more."""
        self.deliveries = ()
        if self.timed_out and self.task is not None:
            self.task.uncancel()  # the handler swallowed the cancellation and returned: it did its work

    def expire(self, now: float) -> None:
        """Cancel the handler when its time, by the loop's clock, is up."""
        if self.deliveries and now >= self.deadline and not self.timed_out and self.task:
            self.timed_out = True
            self.task.cancel()


class Attempts:
    """How one route tries its deliveries.

    `table` is the hash of the route table, stamped on dead letters. `threads` runs sync handlers. With
    `tell_handled` each success gets an event too.
    """

    def __init__(self, route: Route, *, table: str, threads: Executor, tell_handled: bool) -> None:
        self._route, self._table, self._threads = route, table, threads
        self._tell_handled = tell_handled
        self._limit = route.delivery_limit
        self._emit = route.emit
        self._call = route.handler.call if route.handler.is_async else self._call_in_thread
        typed = route.handler.payload_type
        self._convert = None if typed is None else typed.each if route.batch else typed.convert
        self._schemas: dict[str, tuple[Schema, ...]] = {}

    async def run(self, worker: Worker, delivery: Delivery, now: float) -> Verdict:
        """Try the delivery in the task of `worker`; `now` is the loop's time. Never raises but cancelled."""
        checked = self._check(delivery)
        if isinstance(checked, Verdict):
            return checked
        arguments = (checked[0], delivery.message) if self._route.handler.wants_message else checked
        worker.begin((delivery,), now + self._route.timeout)
        try:
            answer = await self._call(*arguments)
        except BaseException as error:  # noqa: BLE001  SystemExit too: a handler must not end the router
            return self._judge(delivery, self._failure(worker, error))
        finally:
            worker.end()
        if self._emit is not None or self._tell_handled:
            return self._handled(delivery, answer, asyncio.get_running_loop().time() - now)
        return _HANDLED

    async def run_batch(self, worker: Worker, deliveries: Sequence[Delivery], now: float) -> list[Verdict]:
        """Try deliveries together; return a verdict for each, in their order. Never raises but cancelled.

        The handler gets the list of payloads and, if it has a second parameter, that of the messages. When
        it returns a list, its items speak for the messages one by one: an exception, such as a `Reject` or
        `Retry`, is that message's failure, anything else its success.
        """
        checked = [self._check(delivery) for delivery in deliveries]
        verdicts = [item if isinstance(item, Verdict) else _HANDLED for item in checked]
        places = [index for index, item in enumerate(checked) if not isinstance(item, Verdict)]
        if not places:
            return verdicts
        payloads = [item[0] for item in checked if not isinstance(item, Verdict)]
        messages = [deliveries[index].message for index in places]
        arguments = (payloads, messages) if self._route.handler.wants_message else (payloads,)
        said: Sequence[Any] = [None] * len(places)
        worker.begin(deliveries, now + self._route.timeout)
        try:
            answer = await self._call(*arguments)
        except BaseException as error:  # noqa: BLE001  as in `run`
            said = [self._failure(worker, error)] * len(places)
        else:
            if isinstance(answer, list | tuple):
                said = answer
        finally:
            worker.end()
        seconds = asyncio.get_running_loop().time() - now
        if len(said) != len(places):
            text = f"the handler answered for {len(said)} messages of {len(places)}"
            said = [BatchMismatch(text)] * len(places)
        for index, word in zip(places, said, strict=True):
            if isinstance(word, BaseException | Reason):
                verdicts[index] = self._judge(deliveries[index], word)
            elif self._emit is not None or self._tell_handled:
                verdicts[index] = self._handled(deliveries[index], word, seconds)
        return verdicts

    async def _call_in_thread(self, *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(self._threads, self._route.handler.call, *arguments)
        # A plain function may return a coroutine.
        return await result if asyncio.iscoroutine(result) else result

    def _failure(self, worker: Worker, error: BaseException) -> BaseException | Reason:
        """Return what it means that the handler ended by `error`; raise it when it is not the handler's."""
        if isinstance(error, KeyboardInterrupt | GeneratorExit):
            raise error
        if not isinstance(error, asyncio.CancelledError):
            return error
        task = worker.task
        if worker.timed_out and task is not None:
            # The watchdog cancelled once, so one is taken back; any more came from a stop.
            worker.timed_out = False
            if task.uncancel() > 0:
                raise error
            return self._timeout_reason()
        if task is not None and task.cancelling():
            raise error
        return Reason("failed", "CancelledError", "the handler was cancelled from within")

    def _judge(self, delivery: Delivery, failure: BaseException | Reason) -> Verdict:
        """Decide how a failed attempt ends."""
        match failure:
            case Reason():
                return self._failed(delivery, failure, None)
            case Reject():
                return self._bury(delivery, _reason("rejected", failure))
            case Retry():
                return self._failed(delivery, _reason("failed", failure), failure.after)
            case _:
                return self._failed(delivery, _reason("failed", failure), None)

    def _handled(self, delivery: Delivery, answer: Any, seconds: float) -> Verdict:
        """Settle what was handled, with what it emits and what there is to tell."""
        message = delivery.message
        outcome: Outcome = ACKED
        if self._emit is not None and answer is not None:
            try:
                outcome = Acked((self._emit.message(message, answer),), self._emit.window)
            except TooManyHops as error:
                return self._bury(delivery, _reason("rejected", error))
            except PublishError as error:
                return self._failed(delivery, _reason("failed", error), None)
        if not self._tell_handled:
            return Verdict(outcome)
        return Verdict(outcome, Handled(self._route.name, message.id, message.key, message.attempt, seconds))

    def _check(self, delivery: Delivery) -> tuple[Any] | Verdict:
        """Return the payload, in a tuple, or the verdict on a message that is not for the handler."""
        message, route = delivery.message, self._route
        if delivery.deliveries > self._limit:
            text = f"handed out {delivery.deliveries} times, limit {self._limit}; it may kill the process"
            return self._bury(delivery, Reason("max_deliveries", "MaxDeliveries", text))
        try:
            payload = decode(message.body)
        except PayloadMalformed as error:
            return self._invalid(delivery, Reason("malformed", "PayloadMalformed", str(error)))
        if route.on_invalid != "deliver":
            schemas = self._schemas.get(message.key)
            if schemas is None:
                schemas = self._schemas_of(message.key)
            for schema in schemas:
                if not schema.is_valid(payload):
                    violations = [
                        v for s in schemas if not s.is_valid(payload) for v in s.violations(payload)
                    ]
                    text = "; ".join(map(str, violations))[:MAX_MESSAGE]
                    first = violations[0]
                    reason = Reason(
                        "invalid", "PayloadInvalid", text, pointer=first.pointer, keyword=first.keyword
                    )
                    return self._invalid(delivery, reason)
        if route.when is not None and not route.when.is_valid(payload):
            return Verdict(ACKED, Skipped(route.name, message.id, message.key, "when"))
        return (payload,) if self._convert is None else self._converted(delivery, payload, self._convert)

    def _converted(
        self, delivery: Delivery, payload: Any, convert: Callable[[Any], Any]
    ) -> tuple[Any] | Verdict:
        """Return the payload as what the handler is annotated with, in a tuple, or the verdict."""
        try:
            return (convert(payload),)
        except PayloadUnfit as error:
            text = str(error)[:MAX_MESSAGE]
            reason = Reason("invalid", "PayloadUnfit", text, pointer=error.pointer, keyword=error.keyword)
            return self._invalid(delivery, reason)
        except Exception as error:  # noqa: BLE001  the user's own type may raise anything
            return self._judge(delivery, error)

    def _schemas_of(self, key: str) -> tuple[Schema, ...]:
        if len(self._schemas) >= _REMEMBERED:
            self._schemas.clear()
        contracts = self._route.contracts
        found = tuple(dict.fromkeys(c.schema for c in contracts if matches(c.pattern, key)))
        self._schemas[key] = found
        return found

    def _invalid(self, delivery: Delivery, reason: Reason) -> Verdict:
        if self._route.on_invalid == "drop":
            message = delivery.message
            return Verdict(ACKED, Skipped(self._route.name, message.id, message.key, "invalid"))
        return self._bury(delivery, reason)

    def _failed(self, delivery: Delivery, reason: Reason, after: float | None) -> Verdict:
        message = delivery.message
        decision = self._route.retry.decide(message.attempt, after)
        if isinstance(decision, GiveUp):
            return self._bury(delivery, reason)
        event = Retried(
            self._route.name,
            message.id,
            message.key,
            message.attempt,
            decision.delay,
            reason.kind,
            f"{reason.error}: {reason.message}",
        )
        return Verdict(Delayed(decision.delay), event)

    def _bury(self, delivery: Delivery, reason: Reason) -> Verdict:
        message, route, now = delivery.message, self._route, time.time()
        error = f"{reason.error}: {reason.message}"
        event = DeadLettered(
            route.name, message.id, message.key, message.attempt, reason.kind, error, kept=route.dead_letter
        )
        if not route.dead_letter:
            return Verdict(ACKED, event)
        letter = DeadLetter(
            route=route.name,
            message=message,
            reason=reason,
            attempts=message.attempt,
            deliveries=delivery.deliveries,
            first_failed_at=delivery.failed_at or now,
            last_failed_at=now,
            table=self._table,
        )
        return Verdict(Died(letter), event)

    def _timeout_reason(self) -> Reason:
        route = self._route
        text = f"the handler ran longer than {route.timeout:g} s"
        if not route.handler.is_async:
            text += "; its thread cannot be stopped and may still be running"
        return Reason("timeout", "TimeoutError", text)


def _reason(kind: str, error: BaseException) -> Reason:
    lines = "".join(traceback.format_exception(error))
    return Reason(kind, type(error).__name__, str(error)[:MAX_MESSAGE], traceback=lines[-MAX_TRACEBACK:])
