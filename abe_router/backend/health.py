"""The results of the health checks of a backend, and two checks that every provider can make."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum

import msgspec

from abe_router.backend.views import SubscriptionStatus
from abe_router.diagnostic import Severity
from abe_router.messages.pattern import PatternIndex
from abe_router.text import counted

#: A subscription by its pattern and its group.
SubscriptionName = tuple[str, str]


class HealthCheck(StrEnum):
    """The codes of the checks; `docs/doctor.md` explains each. A code never changes its meaning.

    D1 is for any backend, D2 for SQLite, D3 for Redis. Codes of other providers begin with another letter.
    """

    NOT_DURABLE = "D101"
    ONE_PROCESS = "D102"
    NO_GROUPS = "D103"
    NO_LEASES = "D104"
    NO_DELAYS = "D105"
    NO_DEAD_LETTERS = "D106"
    NO_DEDUPE = "D107"
    NO_ORDER = "D108"
    NO_ATOMIC_OUTPUTS = "D113"
    NO_KEY_VALUE = "D114"
    NO_PEEK = "D115"
    ORPHANED = "D110"
    UNREAD = "D111"
    SLOW = "D112"
    UNREADABLE = "D116"

    FILE = "D201"
    SQLITE_VERSION = "D202"
    FILE_SYSTEM = "D203"
    SYNCHRONOUS = "D204"
    JOURNAL = "D205"
    DISK = "D206"
    PERMISSIONS = "D207"
    DAMAGED = "D208"
    LOG_GROWN = "D209"
    SECOND_NAME = "D210"

    REFUSED = "D301"
    UNSEEN = "D302"
    RIGHTS = "D303"
    PERSISTENCE = "D310"
    SNAPSHOTS = "D311"
    SYNC = "D312"
    WRITES_FAIL = "D313"
    EVICTION = "D320"
    MEMORY = "D321"
    REPLICA = "D330"
    FAILOVER = "D331"
    REPLICAS = "D332"
    SLOTS = "D333"
    SENTINELS = "D334"
    FAILOVER_TIME = "D335"
    OUTBOX = "D336"
    SERVER_VERSION = "D340"
    PLAIN_TEXT = "D350"
    OPEN_TO_ALL = "D351"
    CLOCK = "D360"
    TRIMMED = "D370"
    AHEAD = "D371"
    GROUP_CHANGED = "D372"


#: Number of messages under unread keys that makes the result a warning.
_MANY = 10_000
#: Largest number of keys that a message lists.
_NAMED = 5


class HealthResult(msgspec.Struct, frozen=True):
    """The result of one check.

    `message` says what the check found; it is complete without the other texts. `meaning` says what it means
    for the promise. `hint` is the fix, as a command or a setting. An error breaks the promise, a warning
    weakens it, `info` is good to know, and `ok` needs no action. `message` has no credentials and no payload.
    """

    code: str
    severity: Severity
    message: str
    meaning: str = ""
    hint: str = ""

    @property
    def weakens(self) -> bool:
        """Whether it weakens or breaks the promise."""
        return self.severity in (Severity.ERROR, Severity.WARNING)


def unserved(
    statuses: Sequence[SubscriptionStatus], served: Collection[str]
) -> Iterator[tuple[SubscriptionStatus, int]]:
    """Yield each subscription whose name is not in `served`, and how many messages it holds."""
    for status in statuses:
        if status.name not in served:
            yield status, status.ready + status.in_flight + status.delayed


def orphaned_subscriptions(
    statuses: Sequence[SubscriptionStatus], served: Collection[SubscriptionName] | None
) -> Iterator[HealthResult]:
    """Yield a result for each subscription that holds messages and has no consumer.

    `served` are the subscriptions that have a consumer. If it is None (unknown), nothing is yielded.
    """
    if served is None:
        return
    for status, held in unserved(statuses, {f"{pattern}/{group}" for pattern, group in served}):
        if held:
            name = status.name
            yield HealthResult(
                HealthCheck.ORPHANED,
                Severity.WARNING,
                f"`{name}` holds {counted(held, 'message')} and is not in the file",
                "no worker handles its messages, and they are never removed",
                f"add the route again, or run `abe-router drop {name}`",
            )


def unread_keys(
    counts: Mapping[str, int], served: Collection[SubscriptionName] | None
) -> Iterator[HealthResult]:
    """Yield a result if keys that no subscription matches hold messages.

    `counts` is the number of messages of each such key. A key that a pattern of `served` matches has its
    consumer in the file: its subscription begins with the first worker.
    """
    consumed = PatternIndex(served or ())
    waiting = {key: n for key, n in counts.items() if consumed.match(key)}
    if held := sum(waiting.values()):
        wait = "waits" if held == 1 else "wait"
        yield HealthResult(
            HealthCheck.UNREAD,
            Severity.INFO,
            f"{counted(held, 'message')} {wait} for the first worker: {_named(waiting)}",
            "the routes of the file that match were never served on this backend",
            "run `abe-router serve`",
        )
    if total := sum(counts.values()) - held:
        unread = {key: n for key, n in counts.items() if key not in waiting}
        wait = "waits" if total == 1 else "wait"
        yield HealthResult(
            HealthCheck.UNREAD,
            Severity.WARNING if total >= _MANY else Severity.INFO,
            f"{counted(total, 'message')} {wait} under keys that no subscription matches: {_named(unread)}",
            "a key without a subscription keeps all messages, so it grows without limit",
            "give the key a consumer, or stop publishing to it",
        )


def _named(counts: Mapping[str, int]) -> str:
    """Return the keys with the most messages, and how many others there are."""
    held = sorted(((n, key) for key, n in counts.items() if n), reverse=True)
    names = ", ".join(f"`{key}` {n:,}" for n, key in held[:_NAMED])
    return names + (f" and {counted(len(held) - _NAMED, 'more key')}" if len(held) > _NAMED else "")
