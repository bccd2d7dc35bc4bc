"""Decides which deliveries reach the handler."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from abe_router.backend import Delivery, Reason
from abe_router.consumer.disposition import MAX_MESSAGE, Disposition, DispositionPolicy
from abe_router.errors import PayloadMalformed, PayloadUnfit
from abe_router.messages.cache import remember
from abe_router.messages.message import decode
from abe_router.messages.pattern import PatternIndex, covers
from abe_router.routing.route import Route
from abe_router.schema import Schema


class Filter:
    """Checks the deliveries of one route before the handler is called.

    `policy` decides what the others come to: those that break their contract, do not match `when`, or were
    handed out too often.
    """

    def __init__(self, route: Route, policy: DispositionPolicy) -> None:
        self._route, self._policy = route, policy
        self._limit, self._when = route.delivery_limit, route.when
        self._validates = route.on_invalid != "deliver"
        typed = route.handler.payload_type
        self._convert = None if typed is None else typed.each if route.batch else typed.convert
        self._schemas: dict[str, tuple[Schema, ...]] = {}
        # Mostly the bindings are for all keys of the route, and then no key has to be looked up.
        self._common: tuple[Schema, ...] | None = None
        if all(covers(each.pattern, route.key) for each in route.bindings):
            self._common = tuple(dict.fromkeys(each.schema for each in route.bindings))

    def check(self, delivery: Delivery) -> tuple[Any] | Disposition:
        """Return the payload, in a tuple, or what a message that is not for the handler comes to."""
        message = delivery.message
        if delivery.deliveries > self._limit:
            text = f"handed out {delivery.deliveries} times, limit {self._limit}; it may kill the process"
            return self._policy.dead_lettered(delivery, Reason("max_deliveries", "MaxDeliveries", text))
        try:
            payload = decode(message.body)
        except PayloadMalformed as error:
            text = delivery.fault or str(error)
            return self._policy.invalid(delivery, Reason("malformed", "PayloadMalformed", text))
        if self._validates:
            schemas = self._common
            if schemas is None:
                schemas = self._schemas.get(message.key)
            if schemas is None:
                schemas = self._schemas_of(message.key)
            for schema in schemas:
                if not schema.is_valid(payload):
                    return self._policy.invalid(delivery, _violation_reason(schemas, payload))
        if self._when is not None and not self._when.is_valid(payload):
            return self._policy.skipped(delivery, "when")
        return (payload,) if self._convert is None else self._converted(delivery, payload)

    def _converted(self, delivery: Delivery, payload: Any) -> tuple[Any] | Disposition:
        """Return the payload as the type that the handler asks for, in a tuple, or what a misfit comes to."""
        assert self._convert is not None
        try:
            return (self._convert(payload),)
        except PayloadUnfit as error:
            text, pointer = str(error), error.pointer
            if (mask := self._policy.mask_of((delivery,))) is not None:  # code of the type writes such texts
                text, pointer = mask.hide(text), pointer if mask.hide(pointer) == pointer else ""
            text = text[:MAX_MESSAGE]
            reason = Reason("invalid", "PayloadUnfit", text, pointer=pointer, keyword=error.keyword)
            return self._policy.invalid(delivery, reason)
        except Exception as error:  # noqa: BLE001  the user's own type may raise anything
            return self._policy.failed(delivery, error)

    @cached_property
    def _schema_index(self) -> PatternIndex[Schema]:
        return PatternIndex((each.pattern, each.schema) for each in self._route.bindings)

    def _schemas_of(self, key: str) -> tuple[Schema, ...]:
        found = tuple(dict.fromkeys(self._schema_index.match(key)))
        remember(self._schemas, key, found)
        return found


def _violation_reason(schemas: tuple[Schema, ...], payload: Any) -> Reason:
    violations = [v for s in schemas for v in s.violations(payload)]
    text = "; ".join(map(str, violations))[:MAX_MESSAGE]
    first = violations[0]
    return Reason("invalid", "PayloadInvalid", text, pointer=first.pointer, keyword=first.keyword)
