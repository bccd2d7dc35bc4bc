"""What an attempt comes to: an outcome, and the event that reports it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

from abe_router.backend import ACKED, Acked, Dead, DeadLetter, Delayed, Delivery, Outcome, Reason
from abe_router.errors import (
    Reject,
    Retry,
    TooManyHops,
    first_cause,
    text_of,
    type_name,
    user_frame,
    user_traceback,
)
from abe_router.messages.pattern import matches
from abe_router.observe.events import DeadLettered, Event, Handled, Retried, Skipped
from abe_router.routing.contract import SchemaBinding
from abe_router.routing.policies import GiveUp
from abe_router.routing.route import Route
from abe_router.schema import Schema, TextMask

#: Longest traceback kept with a dead letter, in characters. The end is kept, which says most.
MAX_TRACEBACK = 8_000
#: Longest error message kept with a dead letter or reported by an event, in characters.
MAX_MESSAGE = 1_000


class Disposition(NamedTuple):
    """The outcome of a delivery, and the event to emit once the backend has carried it out.

    `called` says whether the handler was called.
    """

    outcome: Outcome
    event: Event | None = None
    called: bool = True


#: Handled, with no output and no event.
HANDLED = Disposition(ACKED)


class DispositionPolicy:
    """Decides what the attempts of one route come to.

    `revision` is that of the route table, stamped on dead letters. With `report_handled` a success has an
    event too. No reason has a value that a schema of its message marks as `x-sensitive`: it is masked in what
    an error of the handler says before the reason is stored, logged or shown.
    """

    def __init__(self, route: Route, *, revision: str, report_handled: bool) -> None:
        self._route, self._revision = route, revision
        self._emit, self._report_handled = route.emit, report_handled
        #: Whether every success is `HANDLED`, so that `handled` need not be called.
        self.is_brief = route.emit is None and not report_handled

    def mask_of(self, deliveries: Sequence[Delivery]) -> TextMask | None:
        """Return what masks texts that may quote these messages, None if no schema marks any value."""
        return TextMask(partial(self._sensitive, deliveries)) if self._sensitive_bindings else None

    def handled(
        self,
        delivery: Delivery,
        answer: Any,
        seconds: float,
        trace: Mapping[str, str] | None = None,
        mask: TextMask | None = None,
    ) -> Disposition:
        """Decide on a success that took `seconds`: ack it, with what the handler's answer emits.

        `trace` is the trace context for what it emits; without one, that of the message is passed on. `mask`
        is that of all messages of the call.
        """
        message = delivery.message
        outcome: Outcome = ACKED
        if self._emit is not None and answer is not None:
            try:
                outcome = Acked((self._emit.message(message, answer, trace),), self._emit.window)
            except Exception as error:  # noqa: BLE001  the answer's own code may raise anything when it is read
                return self.failed(delivery, error, mask)
        if not self._report_handled:
            return Disposition(outcome)
        return Disposition(
            outcome, Handled(self._route.name, message.id, message.key, message.attempt, seconds)
        )

    def failed(
        self, delivery: Delivery, failure: BaseException | Reason, mask: TextMask | None = None
    ) -> Disposition:
        """Decide on a failure. `mask` is that of all messages of the call, by default of this one."""
        if isinstance(failure, Reason):
            return self._retried(delivery, failure, None)
        mask = mask or self.mask_of((delivery,))
        if isinstance(failure, Reject | TooManyHops):
            return self.dead_lettered(delivery, _reason("rejected", failure, mask))
        after = failure.after if isinstance(failure, Retry) else None
        return self._retried(delivery, _reason("failed", failure, mask), after)

    def invalid(self, delivery: Delivery, reason: Reason) -> Disposition:
        """Decide on a message that breaks its contract."""
        if self._route.on_invalid == "drop":
            return self.skipped(delivery, "invalid")
        return self.dead_lettered(delivery, reason)

    def skipped(self, delivery: Delivery, why: str) -> Disposition:
        """Ack a message that is not for the handler."""
        message = delivery.message
        return Disposition(ACKED, Skipped(self._route.name, message.id, message.key, why), called=False)

    def dead_lettered(self, delivery: Delivery, reason: Reason) -> Disposition:
        """End a message for good: as a dead letter, or dropped if the route keeps none."""
        message, route, now = delivery.message, self._route, time.time()
        error = f"{reason.error}: {reason.message}"
        event = DeadLettered(
            route.name,
            message.id,
            message.key,
            message.attempt,
            reason.kind,
            error,
            kept=route.dead_letter,
            traceback=_logged_traceback(reason),
        )
        if not route.dead_letter:
            return Disposition(ACKED, event)
        dead_letter = DeadLetter(
            route=route.name,
            message=message,
            reason=reason,
            attempts=message.attempt,
            deliveries=delivery.deliveries,
            first_failed_at=delivery.failed_at or now,
            last_failed_at=now,
            revision=self._revision,
        )
        return Disposition(Dead(dead_letter), event)

    @cached_property
    def _sensitive_bindings(self) -> Sequence[SchemaBinding]:
        return [each for each in self._route.bindings if each.schema.has_sensitive]

    def _sensitive(self, deliveries: Sequence[Delivery]) -> Iterator[tuple[Schema, bytes]]:
        """Yield the schemas that mark values of these messages, and the bodies."""
        for binding in self._sensitive_bindings:
            for message in (each.message for each in deliveries):
                if matches(binding.pattern, message.key):
                    yield binding.schema, message.body

    def _retried(self, delivery: Delivery, reason: Reason, after: float | None) -> Disposition:
        """Try again later, `after` seconds if given, or give up, as the route's retry policy decides."""
        message = delivery.message
        decision = self._route.retry.decide(message.attempt, after)
        if isinstance(decision, GiveUp):
            return self.dead_lettered(delivery, reason)
        event = Retried(
            self._route.name,
            message.id,
            message.key,
            message.attempt,
            decision.delay,
            reason.kind,
            f"{reason.error}: {reason.message}",
            _logged_traceback(reason),
        )
        return Disposition(Delayed(decision.delay), event)


def _logged_traceback(reason: Reason) -> str:
    """Return the traceback to log: none for a plain `Reject` or `Retry`, which is no error of the handler."""
    text = reason.traceback
    return "" if reason.error in {"Reject", "Retry"} and text.count("Traceback (most") < 2 else text


def _reason(kind: str, error: BaseException, mask: TextMask | None) -> Reason:
    # A text is masked before it is cut: of a value that was cut, too little may be left to find it.
    cause, hide = first_cause(error), None if mask is None else mask.hide
    text = text_of(error)
    return Reason(
        kind,
        type(error).__name__,
        (text if hide is None else hide(text))[:MAX_MESSAGE],
        traceback=user_traceback(error, hide)[-MAX_TRACEBACK:],
        type=type_name(cause),
        frame=user_frame(cause),
    )
