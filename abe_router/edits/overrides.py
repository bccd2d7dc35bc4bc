"""Follows the overrides in the backend, and puts them into force in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from abe_router.backend import Backend, read_stored
from abe_router.consumer import NO_LIMITS, RouteLimits
from abe_router.errors import BackendError
from abe_router.observe.events import Events, OverrideBegan, OverrideEnded
from abe_router.runtime.override import OVERRIDES, Override
from abe_router.runtime.reconciler import Reconciler

#: Interval at which the overrides are read, in seconds.
EVERY = 1.0
#: A reading counts as the one before if it is not older than this, in seconds.
RECENT = 5 * EVERY

# An override is in one state here: unknown, in force, or gone.
#
#   unknown  -> in force   a reading returned it
#   in force -> gone       a reading did not return it: it was deleted, or the backend's clock ended it; or
#                          the backend is away, and it ended by the clock of this process
#   gone     -> in force   the backend is back and still has it, because its clock ends it later
#
# Invariant: while the backend answers, exactly what it returned last is in force.


class _Followed(NamedTuple):
    """An override with the revision of its entry, and its end by the loop's clock."""

    override: Override
    revision: int
    ends_at: float


class OverrideFollower:
    """Puts the overrides of a backend that has a key-value store into force.

    `changed` is set after each change, so that the worker reports at once which ones it obeys. With
    `reports`, each change is an event; of several workers of one supervisor, one has it.
    """

    def __init__(
        self,
        backend: Backend,
        reconciler: Reconciler,
        events: Events,
        *,
        changed: asyncio.Event,
        reports: bool = True,
    ) -> None:
        self._backend, self._reconciler, self._events = backend, reconciler, events
        self._changed, self._reports = changed, reports
        self._followed: dict[str, _Followed] = {}
        self._read_at: float | None = None

    @property
    def overrides(self) -> Sequence[Override]:
        """The overrides in force."""
        return [followed.override for followed in self._followed.values()]

    @property
    def obeyed(self) -> Mapping[str, int]:
        """The revisions of the entries in force, by name."""
        return {name: followed.revision for name, followed in self._followed.items()}

    async def run(self) -> None:
        """Follow the overrides until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(EVERY)

    async def refresh(self) -> None:
        """Read the overrides and put them into force; if the backend is away, end those that are over."""
        now = asyncio.get_running_loop().time()
        try:
            entries = await self._backend.entries(OVERRIDES)
        except BackendError:
            self._apply({name: each for name, each in self._followed.items() if each.ends_at > now})
            return
        followed: dict[str, _Followed] = {}
        for name, entry in entries.items():
            before = self._followed.get(name)
            if before is not None and before.revision == entry.revision:
                followed[name] = before
            elif (override := read_stored(entry.value, Override)) is not None:
                followed[name] = _Followed(override, entry.revision, now + self._seconds_left(override, now))
        self._read_at = now
        self._apply(followed)

    def _seconds_left(self, override: Override, now: float) -> float:
        """Return how long an override that was read for the first time holds, if the backend goes away.

        If there was a reading shortly before, it has just begun. Otherwise only the clock of this host can
        tell, which may be wrong.
        """
        if self._read_at is not None and now - self._read_at < RECENT:
            return override.seconds
        return min(max(0.0, override.ends_at - time.time()), override.seconds)

    def _apply(self, followed: dict[str, _Followed]) -> None:
        before, self._followed = self._followed, followed
        if before == followed:
            return
        self._reconciler.limit(limits_of(self.overrides))
        self._changed.set()
        if not self._reports:
            return
        for name, each in followed.items():
            if name not in before or before[name].revision != each.revision:
                self._events.emit(OverrideBegan(each.override.route, each.override.describe()))
        for name in before.keys() - followed.keys():
            override = before[name].override
            self._events.emit(OverrideEnded(override.route, override.effect))


def limits_of(overrides: Iterable[Override]) -> dict[str, RouteLimits]:
    """Return the limits of the routes that have overrides."""
    limits: dict[str, RouteLimits] = {}
    for override in overrides:
        before = limits.get(override.route, NO_LIMITS)
        paused = before.paused or override.action == "pause"
        limits[override.route] = RouteLimits(paused, override.rate or before.rate)
    return limits
