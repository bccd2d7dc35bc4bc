"""What one route would do with one message, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from abe_router.cli.routes import batch_text
from abe_router.messages.pattern import matches
from abe_router.routing.route import Route
from abe_router.text import format_duration, format_rate


@dataclass(frozen=True, slots=True)
class Fate:
    """What a route would do with a message.

    `matches` says whether the route gets it at all, `delivered` whether its handler would; `why` says what
    is in the way, `how` in what measure its handler gets them. `attempts` are the latest times of every
    attempt, in seconds after the first, without the time that the handler takes. `ends` says for each way
    to fail where the message ends. All three are empty when no handler gets it.
    """

    route: str
    handler: str
    matches: bool
    delivered: bool
    why: Sequence[str] = ()
    how: Sequence[str] = ()
    attempts: Sequence[float] = ()
    ends: Mapping[str, str] = field(default_factory=dict)


def fate(route: Route, key: str, payload: Any) -> Fate:
    """Return what the route would do with a message of `key`."""
    if not matches(route.key, key):
        return Fate(
            route.name, route.handler.path, matches=False, delivered=False, why=(mismatch(route.key, key),)
        )
    grave = "dead letter" if route.dead_letter else "dropped"
    invalid = {"dead_letter": f"{grave} at once", "drop": "dropped"}.get(route.on_invalid)
    why = ["the route is paused"] if route.paused else []
    if invalid is not None:
        broken = (
            c.schema for c in route.bindings if matches(c.pattern, key) and not c.schema.is_valid(payload)
        )
        why += [f"breaks {schema.name}: {invalid}, should it get here" for schema in dict.fromkeys(broken)]
    if route.when is not None:
        why += [f"`when` does not match: {violation}" for violation in route.when.violations(payload)]
    if why:
        return Fate(route.name, route.handler.path, matches=True, delivered=False, why=why)
    tries = route.retry.attempts
    last = f"{grave} after attempt {tries}" if tries > 1 else f"{grave} at once"
    delays = (route.retry.delay(attempt) for attempt in range(1, tries))
    return Fate(
        route.name,
        route.handler.path,
        matches=True,
        delivered=True,
        how=tuple(_measures(route)),
        attempts=tuple(accumulate(delays, initial=0.0)),
        ends={
            "the handler raises": last,
            f"it runs over {format_duration(route.timeout)}": last,
            "it raises Reject": f"{grave} at once",
            "it kills the worker": f"{grave} after delivery {route.delivery_limit}",
        },
    )


def _measures(route: Route) -> Iterator[str]:
    if route.batch is not None:
        yield f"in batches of {batch_text(route.batch)}"
    if route.rate is not None:
        yield f"at most {format_rate(route.rate)}, all processes together"
    if route.emit is not None:
        yield f"what it returns is published as {route.emit.key}"


def mismatch(pattern: str, key: str) -> str:
    """Say why `key` does not match `pattern`: the first word that differs, or the last after a `#`."""
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
    return "no words in place of `#` make it fit"
