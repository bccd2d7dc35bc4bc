"""The place of an exclusive handle: who has it, and what goes with it.

Its number is the upper part of every claim of the handle, so the claims themselves tell whose they are. The
lower part counts the fetches.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from abe_router.backend import Delivery
from abe_router.backends.sqlite import backlog, lease
from abe_router.backends.sqlite.database import Database
from abe_router.backends.sqlite.group import Group, begin, find
from abe_router.backends.sqlite.lease import Claim, Receipt

#: How often to look, in seconds, whether the place is free.
LOOK = 0.25
#: How many bits of a claim count the fetches, and how many name the handle.
_COUNT, _NAME = 22, 40

# What may be handed out again, due or not: nobody has it, or somebody without the place had it too long.
_AGAIN = """
    SELECT seq FROM deliveries
    WHERE sid = ? AND (claim IS NULL OR (due <= ? AND claim >> 22 != ?)) ORDER BY seq LIMIT ?"""
_HAND_OUT = f"""
    UPDATE deliveries SET claim = ?, due = ?, deliveries = deliveries + 1,
        retry_at = CASE WHEN claim IS NULL AND due > ? THEN due ELSE retry_at END
    WHERE sid = ? AND seq IN ({_AGAIN})"""  # noqa: S608  of constants
_HELD_BY_OTHERS = "SELECT 1 FROM deliveries WHERE sid = ? AND due > ? AND claim >> 22 != ? LIMIT 1"
_TAKE_OVER = (
    "UPDATE deliveries SET claim = NULL, due = coalesce(retry_at, 0) WHERE sid = ? AND claim NOT NULL"
)
_TAKE_BACK = """
    UPDATE deliveries SET claim = NULL, due = coalesce(retry_at, 0), deliveries = deliveries - 1
    WHERE sid = ? AND claim = ?"""


def new_owner() -> int:
    """Return the number of a handle, which no other has."""
    return secrets.randbits(_NAME)


def number(owner: int, count: int) -> int:
    """Return the claim of a handle's fetch."""
    return (owner << _COUNT) + (count & ((1 << _COUNT) - 1))


class Wish(NamedTuple):
    """What an exclusive handle asks for: so many deliveries for `lease` seconds, under the claim `number`.

    `unsure` are claims of earlier fetches whose answer nobody got.
    """

    group: Group
    owner: int
    number: int
    limit: int
    lease: float
    unsure: Sequence[int]


def look(database: Database, wish: Wish) -> tuple[int, float]:
    """Return the number of the subscription, and in how many seconds a claim may change anything."""
    found, now = find(database, wish.group), time.time()
    if found is None:
        return 0, 0.0
    sid, cursor = found
    owner, until = _place(database, sid)
    if owner != wish.owner:
        return sid, _free_in(database, sid, owner, until, now)
    keep = until - now - wish.lease * 2 / 3
    if keep <= 0 or wish.unsure:
        return sid, 0.0
    again = database.execute(_AGAIN, (sid, now, owner, 1))
    seq = backlog.first(database, wish.group.pattern, max(cursor, database.passed.get(sid, 0)))
    return sid, 0.0 if again.fetchone() or seq is not None else keep


def claim(database: Database, wish: Wish) -> tuple[Claim, float]:
    """Take the place if it is free, and lease what there is; return it, and when to look again if nothing."""
    sid, cursor = begin(database, wish.group)
    now = time.time()
    number, until = wish.number, now + wish.lease
    owner, kept_until = _place(database, sid)
    if owner != wish.owner:
        if wait := _free_in(database, sid, owner, kept_until, now):
            return Claim(sid, number, until, 0), wait
        database.execute(_TAKE_OVER, (sid,))
    database.execute_many(_TAKE_BACK, [(sid, unsure) for unsure in wish.unsure])
    database.execute(
        "INSERT OR REPLACE INTO places (sid, owner, until) VALUES (?, ?, ?)", (sid, wish.owner, until)
    )
    again = database.execute(_HAND_OUT, (number, until, now, sid, sid, now, wish.owner, wish.limit)).rowcount
    new = 0
    if again < wish.limit:
        after = max(cursor, database.passed.get(sid, 0))
        new = backlog.take(database, wish.group.pattern, after, wish.limit - again, (sid, number, until))
    if new:
        database.execute(
            "UPDATE subscriptions SET cursor = (SELECT max(seq) FROM deliveries WHERE sid = ?) WHERE sid = ?",
            (sid, sid),
        )
    return Claim(sid, number, until, again + new), wish.lease / 3


def read(database: Database, claim: Claim) -> list[Delivery]:
    """Return what was claimed, in the order of the log, with the time that each has to wait."""
    deliveries = lease.read(database, claim)
    now = time.time()
    waits = dict(
        database.execute(
            "SELECT seq, retry_at FROM deliveries WHERE sid = ? AND due = ? AND claim = ? AND retry_at > ?",
            (claim.sid, claim.until, claim.number, now),
        ).fetchall()
    )
    return [
        msgspec.structs.replace(each, wait=waits[each.receipt.seq] - now)
        if each.receipt.seq in waits
        else each
        for each in deliveries
    ]


def postpone(
    database: Database, failed: Sequence[tuple[Receipt, float]], number: int, seconds: float
) -> tuple[set[Receipt], float]:
    """Count failures and claim their rows anew for so many seconds; return those held, and the time."""
    held, now = lease.still_held(database, [receipt for receipt, _ in failed]), time.time()
    database.execute_many(
        """
        UPDATE deliveries SET claim = ?, due = ?, retry_at = ?, deliveries = deliveries + 1,
            failures = failures + 1, failed_at = coalesce(failed_at, ?)
        WHERE sid = ? AND seq = ?""",
        [
            (number, now + seconds, now + wait, now, receipt.sid, receipt.seq)
            for receipt, wait in failed
            if receipt in held
        ],
    )
    return held, now


def keep(database: Database, sids: Iterable[int], owner: int, seconds: float) -> None:
    """Keep the place, where it is the handle's, for so many seconds from now."""
    database.execute_many(
        "UPDATE places SET until = ? WHERE sid = ? AND owner = ?",
        [(time.time() + seconds, sid, owner) for sid in sids],
    )


def leave(database: Database, group: Group, owner: int) -> None:
    """Let others have the place, if the handle has it."""
    found = find(database, group)
    if found is not None:
        sid, _ = found
        database.execute("UPDATE places SET until = 0 WHERE sid = ? AND owner = ?", (sid, owner))
        database.news.falls_due(sid, 0)


def _place(database: Database, sid: int) -> tuple[int, float]:
    """Return who had the place last and until when; -1 for nobody."""
    found = database.execute("SELECT owner, until FROM places WHERE sid = ?", (sid,)).fetchone()
    return found or (-1, 0.0)


def _free_in(database: Database, sid: int, owner: int, until: float, now: float) -> float:
    """Return when to look again for the place that another has or had, 0 when it is free."""
    if until > now:
        return min(until - now, LOOK)
    return LOOK if database.execute(_HELD_BY_OTHERS, (sid, now, owner)).fetchone() else 0.0
