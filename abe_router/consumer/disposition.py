"""How an attempt ends."""

from __future__ import annotations

import time
import traceback
from typing import Any, NamedTuple

from abe_router.backend import ACKED, Acked, Dead, DeadLetter, Delayed, Delivery, Outcome, Reason
from abe_router.errors import Reject, Retry, TooManyHops, text_of
from abe_router.observe.events import DeadLettered, Event, Handled, Retried, Skipped
from abe_router.routing.policies import GiveUp
from abe_router.routing.route import Route

#: Longest traceback kept with a dead letter, in characters; the end says most, so the end is kept.
MAX_TRACEBACK = 8_000
#: Longest error message kept with a dead letter or told in an event, in characters.
MAX_MESSAGE = 1_000


class Verdict(NamedTuple):
    """How a delivery ends, and what to tell once it has."""

    outcome: Outcome
    event: Event | None = None


#: Handled, with nothing to emit and nothing to tell.
HANDLED = Verdict(ACKED)


class Judge:
    """How the attempts of one route end, by its policies.

    `revision` is that of the route table, stamped on dead letters. With `tell_handled` each success gets an
    event too.
    """

    def __init__(self, route: Route, *, revision: str, tell_handled: bool) -> None:
        self._route, self._revision = route, revision
        self._emit, self._tell_handled = route.emit, tell_handled
        #: Whether every success is just `HANDLED`, so that `handled` need not be asked.
        self.is_brief = route.emit is None and not tell_handled

    def handled(self, delivery: Delivery, answer: Any, seconds: float) -> Verdict:
        """Settle what was handled within `seconds`, with what it emits and what there is to tell."""
        message = delivery.message
        outcome: Outcome = ACKED
        if self._emit is not None and answer is not None:
            try:
                outcome = Acked((self._emit.message(message, answer),), self._emit.window)
            except TooManyHops as error:
                return self.buried(delivery, _reason("rejected", error))
            except Exception as error:  # noqa: BLE001  what the handler returned may raise anything when read
                return self._tried(delivery, _reason("failed", error), None)
        if not self._tell_handled:
            return Verdict(outcome)
        return Verdict(outcome, Handled(self._route.name, message.id, message.key, message.attempt, seconds))

    def failed(self, delivery: Delivery, failure: BaseException | Reason) -> Verdict:
        """Decide how a failed attempt ends."""
        match failure:
            case Reason():
                return self._tried(delivery, failure, None)
            case Reject():
                return self.buried(delivery, _reason("rejected", failure))
            case Retry():
                return self._tried(delivery, _reason("failed", failure), failure.after)
            case _:
                return self._tried(delivery, _reason("failed", failure), None)

    def invalid(self, delivery: Delivery, reason: Reason) -> Verdict:
        """Decide what becomes of a message that breaks its contract."""
        if self._route.on_invalid == "drop":
            return self.skipped(delivery, "invalid")
        return self.buried(delivery, reason)

    def skipped(self, delivery: Delivery, why: str) -> Verdict:
        """Settle a message that the handler is not to see."""
        message = delivery.message
        return Verdict(ACKED, Skipped(self._route.name, message.id, message.key, why))

    def buried(self, delivery: Delivery, reason: Reason) -> Verdict:
        """End a message for good: among the dead letters, unless the route keeps none."""
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
            revision=self._revision,
        )
        return Verdict(Dead(letter), event)

    def _tried(self, delivery: Delivery, reason: Reason, after: float | None) -> Verdict:
        """Try again later, `after` seconds if given, or give up, as the route's policy says."""
        message = delivery.message
        decision = self._route.retry.decide(message.attempt, after)
        if isinstance(decision, GiveUp):
            return self.buried(delivery, reason)
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


def _reason(kind: str, error: BaseException) -> Reason:
    lines = "".join(traceback.format_exception(error))
    return Reason(kind, type(error).__name__, text_of(error)[:MAX_MESSAGE], traceback=lines[-MAX_TRACEBACK:])
