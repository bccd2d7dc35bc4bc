"""Overrides: a pause or a rate of one route, with an end, an author and a reason.

The bucket `overrides` has one entry for each override, named `pause ROUTE` or `limit ROUTE`, so that a later
one of the same kind replaces it. The entry expires by the clock of the backend, which ends the override.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from abe_router.backend import Backend, Entry, read_stored
from abe_router.text import format_rate, format_until, printable

#: The bucket with one entry for each override.
OVERRIDES = "overrides"

Action = Literal["pause", "limit"]


class Override(msgspec.Struct, frozen=True):
    """One override of a route.

    It began at `began_at`, in seconds since the epoch by the clock of the author's host, and holds for
    `seconds`. `rate`, in messages a second, is that of a `limit`.
    """

    action: Action
    route: str
    began_at: float
    seconds: float
    author: str
    why: str
    rate: float | None = None

    @property
    def name(self) -> str:
        """The name of its entry."""
        return entry_name(self.action, self.route)

    @property
    def ends_at(self) -> float:
        """When it ends by the clock of the author's host, in seconds since the epoch."""
        return self.began_at + self.seconds

    @property
    def effect(self) -> str:
        """What it does, without its end: `paused`, or `limited to 5/s`."""
        return "paused" if self.rate is None else f"limited to {format_rate(self.rate)}"

    def describe(self) -> str:
        """Return it as text: `paused until 14:20 UTC by ada@host: gateway down`."""
        until = format_until(self.ends_at, time.time())
        return printable(f"{self.effect} until {until} by {self.author}: {self.why}")


def entry_name(action: Action, route: str) -> str:
    """Return the name of the entry of an override."""
    return f"{action} {route}"


async def read_overrides(backend: Backend) -> Sequence[Override]:
    """Return the overrides in force, by route; none without a key-value store."""
    if not backend.features.key_value:
        return ()
    return decode_overrides(await backend.entries(OVERRIDES))


def decode_overrides(entries: Mapping[str, Entry]) -> Sequence[Override]:
    """Return the readable overrides among the entries of the bucket, by route, a pause first."""
    found = (read_stored(entry.value, Override) for entry in entries.values())
    return sorted(
        (override for override in found if override is not None),
        key=lambda override: (override.route, override.action != "pause"),
    )
