"""The newest failed attempts whose messages wait for a retry: what no backend keeps with a retry.

Each worker remembers a few of them for each route, and stores them with its heartbeat in the bucket
`failures` of the key-value store, if there are new ones. They are apart from its report, because their texts
may quote payloads and every viewer sees the report. Successful messages cost nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence

import msgspec

from abe_router.backend import Backend, read_stored
from abe_router.observe.events import Event, Retried
from abe_router.text import json_safe, mask_credentials

#: The bucket with one entry for each worker, and how long an entry is kept, in seconds.
FAILURES, KEPT = "failures", 900.0
#: Failures of a route, and routes that a worker remembers; those that failed last.
MOST, MOST_ROUTES = 3, 30
#: Longest text of an error, and of a traceback, whose end is kept; in characters.
MAX_ERROR, MAX_TRACEBACK = 500, 4_000


class FailedAttempt(msgspec.Struct, frozen=True):
    """An attempt that failed at the time `at`. The message is retried after `delay` seconds."""

    at: float
    message_id: str
    key: str
    attempt: int
    delay: float
    kind: str
    error: str
    traceback: str


_Failures = dict[str, tuple[FailedAttempt, ...]]


class RecentFailures:
    """Remembers the failures of one worker, by route."""

    def __init__(self) -> None:
        #: The newest failures of each route with their times, the route that failed last at the end.
        self._routes: dict[str, deque[tuple[float, Retried]]] = {}
        self._has_new = False

    def on_event(self, event: Event) -> None:
        """Remember a failed attempt. Its texts are prepared by `take`: most failures are never stored."""
        if not isinstance(event, Retried):
            return
        kept = self._routes.pop(event.route, None) or deque(maxlen=MOST)
        kept.append((time.time(), event))
        self._routes[event.route] = kept
        if len(self._routes) > MOST_ROUTES:
            del self._routes[next(iter(self._routes))]
        self._has_new = True

    def take(self) -> bytes | None:
        """Return what is to be stored, None if nothing has failed since the last call."""
        if not self._has_new:
            return None
        self._has_new = False
        return msgspec.json.encode(
            {route: [_attempt(at, event) for at, event in kept] for route, kept in self._routes.items()}
        )


def _attempt(at: float, event: Retried) -> FailedAttempt:
    return FailedAttempt(
        at,
        event.message_id,
        event.key,
        event.attempt,
        event.delay,
        event.kind,
        json_safe(mask_credentials(event.error[:MAX_ERROR])),
        json_safe(mask_credentials(event.traceback[-MAX_TRACEBACK:])),
    )


async def read_failures(backend: Backend) -> Mapping[str, Sequence[FailedAttempt]]:
    """Return the failures of all workers by route, newest first; none without a key-value store."""
    if not backend.features.key_value:
        return {}
    found: dict[str, list[FailedAttempt]] = {}
    for entry in (await backend.entries(FAILURES)).values():
        for route, attempts in (read_stored(entry.value, _Failures) or {}).items():
            found.setdefault(route, []).extend(attempts)
    return {route: sorted(each, key=lambda attempt: -attempt.at) for route, each in found.items()}
