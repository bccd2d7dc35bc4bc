"""What one route would do with one message, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from abe_router.log import duration
from abe_router.pattern import matches
from abe_router.route import Route


@dataclass(frozen=True, slots=True)
class Fate:
    """What a route would do with a message.

    `matches` says whether the route gets it at all, `delivered` whether its handler would; `why` says what
    is in the way. `attempts` are the latest times of every attempt, in seconds after the first, without
    the time that the handler takes. `ends` says for each way to fail where the message ends; both are
    empty when the route does not get it.
    """

    route: str
    handler: str
    matches: bool
    delivered: bool
    why: Sequence[str] = ()
    attempts: Sequence[float] = ()
    ends: Mapping[str, str] = field(default_factory=dict)


def fate(route: Route, key: str, payload: Any) -> Fate:
    """Return what the route would do with a message of `key`."""
    if not matches(route.key, key):
        return Fate(
            route.name, route.handler.path, matches=False, delivered=False, why=(mismatch(route.key, key),)
        )
    why = []
    if route.paused:
        why.append("the route is paused")
    if route.on_invalid != "deliver":
        broken = {
            c.schema: None
            for c in route.contracts
            if matches(c.pattern, key) and not c.schema.is_valid(payload)
        }
        why += [f"breaks {schema.name}" for schema in broken]
    if route.when is not None:
        why += [f"`when` does not match: {violation}" for violation in route.when.violations(payload)]
    delays = (route.retry.delay(attempt) for attempt in range(1, route.retry.attempts))
    return Fate(
        route.name,
        route.handler.path,
        matches=True,
        delivered=not why,
        why=why,
        attempts=tuple(accumulate(delays, initial=0.0)),
        ends=_ends(route),
    )


def _ends(route: Route) -> dict[str, str]:
    grave = f"a dead letter of {route.name}" if route.dead_letter else "dropped"
    tries = route.retry.attempts
    last = f"{grave} after attempt {tries}" if tries > 1 else f"{grave} at once"
    invalid = {"dead_letter": f"{grave} at once", "drop": "dropped", "deliver": "handed to the handler"}
    return {
        "the handler raises": last,
        f"it runs over {duration(route.timeout)}": last,
        "it raises Reject": f"{grave} at once",
        "it breaks its schema": invalid[route.on_invalid],
        "it kills the worker": f"{grave} after delivery {route.delivery_limit}",
    }


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
