"""The state of every message and entry, as a fresh backend finds it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

from abe_router.backend import Backend, Delivery


class Pending(NamedTuple):
    """A message that is delivered: at which attempt, and as which delivery."""

    attempt: int = 1
    deliveries: int = 1


class DeadLettered(NamedTuple):
    """A message that is a dead letter after that many attempts."""

    attempt: int = 1


class Stored(NamedTuple):
    """An entry of the key-value store."""

    value: bytes


State = Pending | DeadLettered | Stored
#: A subscription by its pattern and group, or a bucket as `("bucket", NAME)`.
Name = tuple[str, str]
#: By subscription, the state of each message by its id, without settled ones; by bucket, its entries by name.
Snapshot = Mapping[Name, Mapping[str, State]]


class Inconsistent(AssertionError):
    """What a backend reports does not agree with what it delivers."""


async def take(
    backend: Backend,
    *,
    buckets: Collection[str] = (),
    may_repeat: Collection[str] = (),
    may_overcount: Collection[Name] = (),
) -> Snapshot:
    """Return the state of everything, once all leases and delays are over. It fetches all messages.

    Raise Inconsistent when a message comes twice that may not repeat, or when counts differ from what comes.
    Those of subscriptions that `may_overcount` may be higher.
    """
    snapshot: dict[Name, dict[str, State]] = {}
    for pattern, group in [(s.pattern, s.group) for s in await backend.status()]:
        handle = await backend.subscribe(pattern, group, lease=600.0)
        counts = next(s for s in await backend.status() if (s.pattern, s.group) == (pattern, group))
        expected, came = counts.ready + counts.in_flight + counts.delayed, list[Delivery]()
        while found := await handle.fetch(10_000, 0.0):
            came += found
        dead = await backend.dead_letters(pattern, group, limit=10_000)
        for what, count, there in (("unsettled", expected, len(came)), ("dead", counts.dead, len(dead))):
            if there > count or (there < count and (pattern, group) not in may_overcount):
                raise Inconsistent(f"{pattern}/{group} counts {count} {what}, and {there} come")
        states: list[tuple[str, State]] = [
            (d.message.id, Pending(d.message.attempt, d.deliveries)) for d in came
        ]
        states += [(each.message.id, DeadLettered(each.attempts)) for each in dead]
        times = Counter(id for id, _ in states)
        if doubled := [id for id in times if times[id] > 1 and id not in may_repeat]:
            raise Inconsistent(f"{pattern}/{group} has twice: {', '.join(doubled)}")
        snapshot[pattern, group] = dict(states)
    for bucket in buckets:
        entries = await backend.entries(bucket)
        snapshot["bucket", bucket] = {name: Stored(entry.value) for name, entry in entries.items()}
    return snapshot
