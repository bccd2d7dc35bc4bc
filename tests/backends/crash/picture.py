"""Where every message is, as a fresh backend finds it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

from abe_router.backend import Backend, Delivery


class Comes(NamedTuple):
    """It is handed out: at which attempt, and as which delivery."""

    attempt: int = 1
    deliveries: int = 1


class KeptDead(NamedTuple):
    """It is a dead letter of that attempt."""

    attempt: int = 1


Name = tuple[str, str]
#: By subscription, the place of each message, by its id: settled ones are in none.
Picture = Mapping[Name, Mapping[str, Comes | KeptDead]]


class Untrue(AssertionError):
    """What a backend says of itself does not agree."""


async def take(
    backend: Backend, *, repeat: Collection[str] = (), overcounted: Collection[Name] = ()
) -> Picture:
    """Return where everything is, once all leases and delays are over; hand it all out in doing so.

    Raise Untrue when a message comes twice that may not `repeat`, or the counts are not those of what comes;
    those of subscriptions that may be `overcounted` may be higher.
    """
    picture: dict[Name, dict[str, Comes | KeptDead]] = {}
    for pattern, group in [(s.pattern, s.group) for s in await backend.status()]:
        handle = await backend.subscribe(pattern, group, lease=600.0)
        counts = next(s for s in await backend.status() if (s.pattern, s.group) == (pattern, group))
        expected, came = counts.ready + counts.in_flight + counts.delayed, list[Delivery]()
        while found := await handle.fetch(10_000, 0.0):
            came += found
        letters = await backend.dead_letters(pattern, group, limit=10_000)
        for what, count, there in (("unsettled", expected, len(came)), ("dead", counts.dead, len(letters))):
            if there > count or (there < count and (pattern, group) not in overcounted):
                raise Untrue(f"{pattern}/{group} counts {count} {what}, and {there} come")
        places = [(d.message.id, Comes(d.message.attempt, d.deliveries)) for d in came]
        places += [(letter.message.id, KeptDead(letter.attempts)) for letter in letters]
        times = Counter(id for id, _ in places)
        if doubled := [id for id in times if times[id] > 1 and id not in repeat]:
            raise Untrue(f"{pattern}/{group} has twice: {', '.join(doubled)}")
        picture[pattern, group] = dict(places)
    return picture
