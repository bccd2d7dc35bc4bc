"""Which deliveries get to the handler."""

from __future__ import annotations

from typing import Any

from abe_router.backend import Delivery, Reason
from abe_router.consumer.disposition import MAX_MESSAGE, Judge, Verdict
from abe_router.errors import PayloadMalformed, PayloadUnfit
from abe_router.messages.message import decode
from abe_router.messages.pattern import matches
from abe_router.routing.route import Route
from abe_router.schema import Schema

#: Keys whose schemas are remembered by a route on a pattern.
_REMEMBERED = 10_000


class Admission:
    """Checks deliveries of one route before its handler sees them; `judge` decides on those it must not."""

    def __init__(self, route: Route, judge: Judge) -> None:
        self._route, self._judge = route, judge
        self._limit = route.delivery_limit
        typed = route.handler.payload_type
        self._convert = None if typed is None else typed.each if route.batch else typed.convert
        self._schemas: dict[str, tuple[Schema, ...]] = {}

    def check(self, delivery: Delivery) -> tuple[Any] | Verdict:
        """Return the payload, in a tuple, or the verdict on a message that is not for the handler."""
        message, route = delivery.message, self._route
        if delivery.deliveries > self._limit:
            text = f"handed out {delivery.deliveries} times, limit {self._limit}; it may kill the process"
            return self._judge.buried(delivery, Reason("max_deliveries", "MaxDeliveries", text))
        try:
            payload = decode(message.body)
        except PayloadMalformed as error:
            return self._judge.invalid(delivery, Reason("malformed", "PayloadMalformed", str(error)))
        if route.on_invalid != "deliver":
            schemas = self._schemas.get(message.key)
            if schemas is None:
                schemas = self._schemas_of(message.key)
            for schema in schemas:
                if not schema.is_valid(payload):
                    return self._judge.invalid(delivery, _breach(schemas, payload))
        if route.when is not None and not route.when.is_valid(payload):
            return self._judge.skipped(delivery, "when")
        return (payload,) if self._convert is None else self._converted(delivery, payload)

    def _converted(self, delivery: Delivery, payload: Any) -> tuple[Any] | Verdict:
        """Return the payload as what the handler is annotated with, in a tuple, or the verdict."""
        assert self._convert is not None
        try:
            return (self._convert(payload),)
        except PayloadUnfit as error:
            text = str(error)[:MAX_MESSAGE]
            reason = Reason("invalid", "PayloadUnfit", text, pointer=error.pointer, keyword=error.keyword)
            return self._judge.invalid(delivery, reason)
        except Exception as error:  # noqa: BLE001  the user's own type may raise anything
            return self._judge.failed(delivery, error)

    def _schemas_of(self, key: str) -> tuple[Schema, ...]:
        if len(self._schemas) >= _REMEMBERED:
            self._schemas.clear()
        bindings = self._route.bindings
        found = tuple(dict.fromkeys(c.schema for c in bindings if matches(c.pattern, key)))
        self._schemas[key] = found
        return found


def _breach(schemas: tuple[Schema, ...], payload: Any) -> Reason:
    violations = [v for s in schemas for v in s.violations(payload)]
    text = "; ".join(map(str, violations))[:MAX_MESSAGE]
    first = violations[0]
    return Reason("invalid", "PayloadInvalid", text, pointer=first.pointer, keyword=first.keyword)
