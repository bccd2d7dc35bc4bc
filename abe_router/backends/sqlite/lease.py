"""Deliveries: handing messages out under a lease, and taking the outcomes back.

A lease is fenced by its claim, a number that no other fetch has: whoever shows an older one is refused.
Leases and delays are told by this machine's wall clock, which all processes on the file share. When it
jumps ahead, leases end early and messages may be handed out twice, but the first holder's outcome is
refused; when it jumps back, leases and delays take longer by as much.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from abe_router.backend import Acked, Dead, Delayed, Delivery, Outcome, Released
from abe_router.backends.sqlite import backlog, ids, letter, log
from abe_router.backends.sqlite.database import Database
from abe_router.backends.sqlite.group import Group, begin, find


class Receipt(NamedTuple):
    """Which delivery of which subscription, and the claim that shows whose lease it is."""

    sid: int
    seq: int
    claim: int


class Claim(NamedTuple):
    """What a fetch has leased, not yet read: its subscription, its number, the end of its leases."""

    sid: int
    number: int
    until: float
    size: int


def available(database: Database, group: Group) -> tuple[int, bool]:
    """Return the number of the subscription and whether a claim would change anything, without writing."""
    found = find(database, group)
    if found is None:
        return 0, True
    sid, cursor = found
    due = database.execute("SELECT 1 FROM deliveries WHERE sid = ? AND due <= ? LIMIT 1", (sid, time.time()))
    if due.fetchone():
        return sid, True
    seq = backlog.first(database, group.pattern, max(cursor, database.passed.get(sid, 0)))
    # Known without a write, and so not walked over again by the next look.
    database.passed[sid] = log.end(database) if seq is None else seq - 1
    return sid, seq is not None


def claim(database: Database, group: Group, limit: int, lease: float) -> Claim:
    """Lease at most `limit` deliveries for `lease` seconds: first what is due again, then new messages.

    The subscription is made when it does not exist.
    """
    sid, cursor = begin(database, group)
    now = time.time()
    number, until = secrets.randbits(62), now + lease
    again = database.execute(
        """
        UPDATE deliveries SET claim = ?, due = ?, deliveries = deliveries + 1
        WHERE sid = ? AND seq IN (
            SELECT seq FROM deliveries WHERE sid = ? AND due <= ? ORDER BY due, seq LIMIT ?
        )""",
        (number, until, sid, sid, now, limit),
    ).rowcount
    new = 0
    if again < limit:
        after = max(cursor, database.passed.get(sid, 0))
        new = backlog.take(database, group.pattern, after, limit - again, (sid, number, until))
    if new:
        database.execute(
            """
            UPDATE subscriptions SET cursor = (SELECT max(seq) FROM deliveries WHERE sid = ?)
            WHERE sid = ?""",
            (sid, sid),
        )
    if again or new:
        database.news.falls_due(sid, until)
    return Claim(sid, number, until, again + new)


def read(database: Database, claim: Claim) -> list[Delivery]:
    """Return what was claimed, in the order of the log.

    It is read after the commit, so that the file is locked no longer than the claim itself needs.
    """
    rows = database.execute(
        """
        SELECT d.deliveries, d.failures, d.failed_at,
            m.seq, m.kid, m.published_at, m.id, m.headers, CAST(m.body AS BLOB)
        FROM deliveries AS d JOIN messages AS m USING (seq)
        WHERE d.sid = ? AND d.due = ? AND d.claim = ? ORDER BY d.seq""",
        (claim.sid, claim.until, claim.number),
    ).fetchall()
    return [
        Delivery(
            log.decode(database, failures + 1, *message),
            deliveries,
            Receipt(claim.sid, seq, claim.number),
            failed_at,
        )
        for deliveries, failures, failed_at, seq, *message in rows
    ]


def next_due(database: Database, sid: int) -> float | None:
    """Return when the next delivery of the subscription falls due from now on, None if none does."""
    (due,) = database.execute(
        "SELECT min(due) FROM deliveries WHERE sid = ? AND due > ?", (sid, time.time())
    ).fetchone()
    return None if due is None else float(due)


def first_due(database: Database) -> dict[int, float | None]:
    """Return, for each subscription, when its first delivery falls due, None where it has none."""
    return dict(
        database.execute(
            """
            SELECT sid, (SELECT min(due) FROM deliveries AS d WHERE d.sid = s.sid)
            FROM subscriptions AS s WHERE prefix = ?""",
            (database.prefix,),
        ).fetchall()
    )


#: An outcome with its dead letter as text, or what it emits, as values of the tables.
Settlement = tuple[Receipt, Outcome, str, Sequence[ids.Windowed]]


def settle(database: Database, settlements: Sequence[Settlement]) -> list[int]:
    """Carry out the outcomes; return the places of those that were refused."""
    held = still_held(database, [receipt for receipt, *_ in settlements])
    now = time.time()
    refused, done, released, delayed, dead = [], [], [], [], []
    emitted: list[ids.Windowed] = []
    for place, (receipt, outcome, text, outputs) in enumerate(settlements):
        if receipt not in held:
            refused.append(place)
            continue
        held.remove(receipt)  # a second outcome of the same delivery is refused
        match outcome:
            case Acked():
                done.append(receipt)
                emitted += outputs
            case Released():
                released.append(receipt)
            case Delayed(seconds):
                delayed.append((now + seconds, now, receipt.sid, receipt.seq))
                database.news.falls_due(receipt.sid, now + seconds)
            case Dead():
                done.append(receipt)
                dead.append((receipt.sid, receipt.seq, text))
    for sid, listed in _by_subscription(done):
        database.execute(
            "DELETE FROM deliveries WHERE sid = ? AND seq IN (SELECT value FROM json_each(?))", (sid, listed)
        )
    for sid, listed in _by_subscription(released):
        # Due at 0, so that they come again in the order of the log; only an exclusive handle has some early.
        database.execute(
            """
            UPDATE deliveries SET claim = NULL, due = coalesce(retry_at, 0), deliveries = deliveries - 1
            WHERE sid = ? AND seq IN (SELECT value FROM json_each(?))""",
            (sid, listed),
        )
        database.news.falls_due(sid, 0)
    if delayed:
        database.execute_many(
            """
            UPDATE deliveries
            SET claim = NULL, due = ?, failures = failures + 1, failed_at = coalesce(failed_at, ?)
            WHERE sid = ? AND seq = ?""",
            delayed,
        )
    letter.keep(database, dead)
    if emitted:
        ids.append(database, emitted)
    return refused


def extend(database: Database, receipts: Sequence[Receipt], lease: float) -> list[int]:
    """Let the leases end `lease` seconds from now; return the places of those that were lost."""
    held = still_held(database, receipts)
    for sid, listed in _by_subscription(held):
        database.execute(
            "UPDATE deliveries SET due = ? WHERE sid = ? AND seq IN (SELECT value FROM json_each(?))",
            (time.time() + lease, sid, listed),
        )
    return [place for place, receipt in enumerate(receipts) if receipt not in held]


def still_held(database: Database, receipts: Sequence[Receipt]) -> set[Receipt]:
    """Return those of the receipts whose lease nobody else has taken."""
    leases: set[Receipt] = set()
    for sid, listed in _by_subscription(receipts):
        # One row, not one for each: after every row the thread must win the interpreter's lock back.
        (text,) = database.execute(
            """
            SELECT json_group_array(json_array(seq, claim)) FROM deliveries
            WHERE sid = ? AND seq IN (SELECT value FROM json_each(?))""",
            (sid, listed),
        ).fetchone()
        leases.update(Receipt(sid, seq, claim) for seq, claim in json.loads(text))
    return leases.intersection(receipts)


def _by_subscription(receipts: Iterable[Receipt]) -> list[tuple[int, str]]:
    """Return the messages of each subscription, as a list that SQL takes."""
    found: dict[int, list[int]] = {}
    for receipt in receipts:
        found.setdefault(receipt.sid, []).append(receipt.seq)
    return [(sid, _listed(seqs)) for sid, seqs in found.items()]


def _listed(numbers: Iterable[int]) -> str:
    return json.dumps(list(numbers))
