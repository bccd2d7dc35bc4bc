"""Explains a message: which routes receive it, why others do not, and what happens after failures.

Nothing is published and no handler is called. The decisions use the same code as publishing and consuming:
the contract of the key, the filter of a route, and its retry policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import msgspec

from abe_router.errors import PublishError, Violation
from abe_router.messages.message import decode
from abe_router.messages.pattern import check_key, matches
from abe_router.routing.difference import format_batch
from abe_router.routing.route import Route
from abe_router.routing.table import Metadata, RouteTable
from abe_router.runtime.override import Override
from abe_router.runtime.publish import prepare
from abe_router.schema import Schema
from abe_router.text import format_duration, format_rate


class SchemaResult(msgspec.Struct, frozen=True):
    """The result of one schema. `pattern` is the key or pattern that has the schema."""

    pattern: str
    schema: str
    violations: tuple[Violation, ...]


class MessageId(msgspec.Struct, frozen=True):
    """The id that the message gets from its payload or headers.

    For `window` seconds, another message with the same key and id is a duplicate. 0 means that no id is
    remembered.
    """

    id: str
    window: float


class RouteExplanation(msgspec.Struct, frozen=True):
    """What a route does with a message.

    `matches` says whether the route receives it, and `delivered` whether the handler is called. `why` has the
    reasons if it is not, and `how` the limits of the call. `attempts` are the latest times of all attempts,
    in seconds after the first, without the time that the handler takes. `ends` says what happens to the
    message after each kind of failure. These three are empty if the handler is not called. `metadata` is what
    the file says about the route.
    """

    route: str
    handler: str
    matches: bool
    delivered: bool
    why: tuple[str, ...] = ()
    how: tuple[str, ...] = ()
    attempts: tuple[float, ...] = ()
    ends: Mapping[str, str] = {}
    metadata: Metadata = Metadata()


class Explanation(msgspec.Struct, frozen=True):
    """The explanation of a message. `reason` says why it would be refused, or is None.

    `metadata` is what the file says about the key.
    """

    key: str
    accepted: bool
    reason: str | None
    deduplication: MessageId | None
    schemas: tuple[SchemaResult, ...]
    routes: tuple[RouteExplanation, ...]
    metadata: Metadata = Metadata()


def explain(
    table: RouteTable,
    key: str,
    body: bytes,
    *,
    headers: Mapping[str, str] | None = None,
    allow_unrouted: bool = False,
    overrides: Sequence[Override] = (),
) -> Explanation:
    """Return the explanation of a message of `key` whose payload is the JSON `body`.

    `overrides` are those in force; see `overrides.overrides_in_force`.
    Raise KeyInvalid if the key is malformed, and PayloadMalformed if the body is not JSON.
    """
    check_key(key)
    payload = decode(body)
    reason: str | None = None
    known_by: MessageId | None = None
    try:
        message = prepare(table, key, body, headers=headers, allow_unrouted=allow_unrouted)
        deduplication = table.contract(key).deduplication
        if deduplication is not None and deduplication.source:
            known_by = MessageId(message.id, deduplication.window)
    except PublishError as error:
        reason = str(error)
    return Explanation(
        key=key,
        accepted=reason is None,
        reason=reason,
        deduplication=known_by,
        schemas=tuple(
            SchemaResult(binding.pattern, binding.schema.name, tuple(binding.schema.violations(payload)))
            for binding in table.bindings
            if matches(binding.pattern, key)
        ),
        routes=tuple(
            msgspec.structs.replace(
                explain_route(route, key, payload, table.contract(key).schemas, overrides),
                metadata=table.metadata_of(route.name),
            )
            for route in table.routes
        ),
        metadata=table.metadata_of(key),
    )


def explain_route(
    route: Route,
    key: str,
    payload: Any,
    schemas: tuple[Schema, ...],
    overrides: Sequence[Override] = (),
) -> RouteExplanation:
    """Return what a route does with a message of `key`, whose contract has these schemas."""
    if not matches(route.key, key):
        mismatch = explain_mismatch(route.key, key)
        return RouteExplanation(
            route.name, route.handler.path, matches=False, delivered=False, why=(mismatch,)
        )
    overrides = [override for override in overrides if override.route == route.name]
    if why := tuple(_obstacles(route, payload, schemas, overrides)):
        return RouteExplanation(route.name, route.handler.path, matches=True, delivered=False, why=why)
    end = _end(route)
    tries = route.retry.attempts
    last = f"{end} after attempt {tries}" if tries > 1 else f"{end} at once"
    delays = (route.retry.delay(attempt) for attempt in range(1, tries))
    return RouteExplanation(
        route.name,
        route.handler.path,
        matches=True,
        delivered=True,
        how=tuple(_limits(route, overrides)),
        attempts=tuple(accumulate(delays, initial=0.0)),
        ends={
            "the handler raises": last,
            f"it runs over {format_duration(route.timeout)}": last,
            "it raises Reject": f"{end} at once",
            "it kills the worker": f"{end} after delivery {route.delivery_limit}",
        },
    )


def explain_mismatch(pattern: str, key: str) -> str:
    """Return why `key` does not match `pattern`: the first different word, or the last one after a `#`."""
    wanted, words = pattern.split("."), key.split(".")
    for number, want in enumerate(wanted, 1):
        if want == "#":
            break
        if number > len(words):
            return f"the key ends where word {number} should be `{want}`"
        if want not in ("*", words[number - 1]):
            return f"word {number} is `{words[number - 1]}`, not `{want}`"
    else:
        return f"the key goes on after word {len(wanted)} with `{words[len(wanted)]}`"
    for number, want in enumerate(reversed(wanted), 1):
        if want == "#":
            break
        if number > len(words):
            return "the key has too few words"
        if want not in ("*", words[-number]):
            return f"word {len(words) + 1 - number} is `{words[-number]}`, not `{want}`"
    return "no words in place of `#` make it match"


def _end(route: Route) -> str:
    return "dead letter" if route.dead_letter else "dropped"


def _obstacles(
    route: Route, payload: Any, schemas: tuple[Schema, ...], overrides: Sequence[Override]
) -> Iterator[str]:
    """Yield each reason for which the handler of a matching route is not called."""
    if route.paused:
        yield "the route is paused"
    for override in overrides:
        if override.action == "pause":
            yield f"the route is {override.describe()}"
    if route.on_invalid != "deliver":
        outcome = f"{_end(route)} at once" if route.on_invalid == "dead_letter" else "dropped"
        for schema in schemas:
            if not schema.is_valid(payload):
                yield f"breaks {schema.name}: {outcome}, if it gets here"
    if route.when is not None:
        for violation in route.when.violations(payload):
            yield f"`when` does not match: {violation}"


def _limits(route: Route, overrides: Sequence[Override]) -> Iterator[str]:
    if route.batch is not None:
        yield f"in batches of {format_batch(route.batch)}"
    limits = [override.describe() for override in overrides if override.action == "limit"]
    yield from limits
    if route.rate is not None and not limits:
        yield f"at most {format_rate(route.rate)}, all processes together"
    if route.emit is not None:
        yield f"its return value is published as {route.emit.key}"
