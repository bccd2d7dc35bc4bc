"""What an examination of a backend finds: something that weakens the promise, or bears it out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum

import msgspec

from abe_router.backend.subscription import SubscriptionStatus
from abe_router.diagnostic import Severity
from abe_router.text import counted

#: A subscription by its pattern and its group.
SubscriptionName = tuple[str, str]


class HealthCheck(StrEnum):
    """What may be found, each explained in `docs/doctor.md`. A code keeps its meaning for good.

    D1 is what any backend may have, D2 what SQLite may, D3 what Redis may. Another provider's codes begin
    with a letter of its own.
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

    FILE = "D201"
    SQLITE_VERSION = "D202"
    FILE_SYSTEM = "D203"
    SYNCHRONOUS = "D204"
    JOURNAL = "D205"
    DISK = "D206"
    PERMISSIONS = "D207"
    DAMAGED = "D208"
    LOG_GROWN = "D209"

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
    SERVER_VERSION = "D340"
    PLAIN_TEXT = "D350"
    OPEN_TO_ALL = "D351"
    CLOCK = "D360"
    TRIMMED = "D370"


#: From how many messages on a key that nobody reads is more than a curiosity.
_MANY = 10_000
#: Most names that a sentence lists.
_NAMED = 5


class HealthResult(msgspec.Struct, frozen=True):
    """One thing that was looked at.

    `message` says what was found and stands on its own; `meaning` says what that does to the promise, and
    `hint` how to mend it, as a command or a setting. An error breaks the promise and a warning weakens it;
    `info` is fit to know, and `ok` is sound. `message` holds no credentials and no payload.
    """

    code: str
    severity: Severity
    message: str
    meaning: str = ""
    hint: str = ""

    @property
    def weakens(self) -> bool:
        """Whether it weakens the promise."""
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
    """Yield a finding for each subscription that holds messages and that nobody is to serve.

    `served` are those that somebody is to serve; None is that nobody knows.
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
                "nobody handles them, and they keep their messages from being removed",
                f"put the route back, or `abe-router drop {name}`",
            )


def unread_keys(counts: Mapping[str, int]) -> Iterator[HealthResult]:
    """Yield a finding if there are keys that hold messages and that no subscription matches.

    `counts` are how many messages each such key holds.
    """
    held = sorted(((n, key) for key, n in counts.items() if n), reverse=True)
    if not held:
        return
    total = sum(n for n, _ in held)
    names = ", ".join(f"`{key}` {n:,}" for n, key in held[:_NAMED])
    more = f" and {counted(len(held) - _NAMED, 'more key')}" if len(held) > _NAMED else ""
    wait = "waits" if total == 1 else "wait"
    yield HealthResult(
        HealthCheck.UNREAD,
        Severity.WARNING if total >= _MANY else Severity.INFO,
        f"{counted(total, 'message')} {wait} under keys that no subscription matches: {names}{more}",
        "a key that nobody subscribes to keeps everything, so it grows without end",
        "give the key a consumer, or publish to it no more",
    )
