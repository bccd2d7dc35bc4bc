"""Deliveries: handing messages out under a lease, and carrying out their outcomes.

A lease is fenced by its claim, a number that no other fetch has: an outcome with an older claim is refused.
Leases and delays run by this machine's wall clock, which all processes on the file share. When the clock
jumps ahead, leases end early and messages may be delivered twice, but the outcome of the first holder is
refused. When it jumps back, leases and delays last longer by as much.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from abe_router.backend import ACKED, Acked, Dead, Delayed, Delivery, Outcome, Released
from abe_router.backends.sqlite import backlog, dead_letters, dedupe, log
from abe_router.backends.sqlite.database import Database
from abe_router.backends.sqlite.registry import SubscriptionSpec, advance, find, find_or_create
from abe_router.text import counted

_log = logging.getLogger(__name__)
#: What a claim has leased, and whose message is not in the log.
_MISSING = """
    deliveries WHERE sid = ? AND due_at = ? AND claim = ? AND seq NOT IN (SELECT seq FROM messages)"""


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """Which delivery of which subscription, and the claim that its lease has."""

    sid: int
    seq: int
    claim: int


class Claim(NamedTuple):
    """What a fetch has leased and not yet read: `size` deliveries of a subscription, until a time."""

    sid: int
    number: int
    until: float
    size: int


def available(database: Database, spec: SubscriptionSpec) -> tuple[int, bool]:
    """Return the number of the subscription, and whether a claim would change anything. Write nothing."""
    found = find(database, spec)
    if found is None:
        return 0, True
    sid, cursor = found
    due = database.execute(
        "SELECT 1 FROM deliveries WHERE sid = ? AND due_at <= ? LIMIT 1", (sid, time.time())
    )
    if due.fetchone():
        return sid, True
    seq = backlog.first(database, spec.pattern, max(cursor, database.scanned.get(sid, 0)))
    # The next check begins here, without a write to move the cursor.
    database.scanned[sid] = log.end(database) if seq is None else seq - 1
    return sid, seq is not None


def claim(database: Database, spec: SubscriptionSpec, limit: int, lease: float) -> Claim:
    """Lease at most `limit` deliveries for `lease` seconds: first those due again, then new messages.

    The subscription is created when it does not exist.
    """
    sid, cursor = find_or_create(database, spec)
    now = time.time()
    number, until = secrets.randbits(62), now + lease
    again = database.execute(
        """
        UPDATE deliveries SET claim = ?, due_at = ?, deliveries = deliveries + 1
        WHERE sid = ? AND seq IN (
            SELECT seq FROM deliveries WHERE sid = ? AND due_at <= ? ORDER BY due_at, seq LIMIT ?
        )""",
        (number, until, sid, sid, now, limit),
    ).rowcount
    new = 0
    if again < limit:
        after = max(cursor, database.scanned.get(sid, 0))
        new = backlog.take(database, spec.pattern, after, limit - again, (sid, number, until))
    if new:
        advance(database, sid, new)
    if again or new:
        database.changes.add_due(sid, until)
    return Claim(sid, number, until, again + new)


def read(database: Database, claim: Claim) -> list[Delivery]:
    """Return what was claimed, in the order of the log.

    It is read after the commit, so that the file is locked only as long as the claim itself takes.
    """
    rows = database.execute(
        f"""
        SELECT d.deliveries, CAST(d.failures AS INTEGER), d.failed_at, CAST(d.replays AS INTEGER), m.seq,
            {log.COLUMNS}
        FROM deliveries AS d JOIN messages AS m USING (seq)
        WHERE d.sid = ? AND d.due_at = ? AND d.claim = ? ORDER BY d.seq""",  # noqa: S608  a constant
        (claim.sid, claim.until, claim.number),
    ).fetchall()
    if len(rows) < claim.size:
        _bury_missing(database, claim)
    sid, number, decode, names = claim.sid, claim.number, log.decode, database.keys.names
    return [
        Delivery(
            decode(names, failures + 1, key_id, published_at, id, headers, body),
            deliveries,
            Receipt(sid, seq, number),
            failed_at if type(failed_at) is float else None,
            0.0,
            "" if body else log.fault(database, seq),
            replays,
        )
        for deliveries, failures, failed_at, replays, seq, key_id, published_at, id, headers, body in rows
    ]


def _bury_missing(database: Database, claim: Claim) -> None:
    """Turn deliveries whose message another program deleted into dead letters, so that the loss is shown."""
    values = (claim.sid, claim.until, claim.number)
    with database.writing():
        rows = database.execute(f"SELECT '', sid, seq FROM {_MISSING}", values).fetchall()  # noqa: S608
        dead_letters.add(database, rows)
        database.execute(f"DELETE FROM {_MISSING}", values)  # noqa: S608  a constant
    if rows:
        _log.error(
            "`%s`: another program deleted %s before the delivery; see the dead letters",
            database.path,
            counted(len(rows), "message"),
        )


def next_due(database: Database, sid: int) -> float | None:
    """Return when the next delivery of the subscription falls due after now, None if none does."""
    (due_at,) = database.execute(
        "SELECT min(due_at) FROM deliveries WHERE sid = ? AND due_at > ? AND due_at < 9e99",
        (sid, time.time()),
    ).fetchone()
    return None if due_at is None else float(due_at)


def first_due(database: Database) -> dict[int, float | None]:
    """Return, by subscription, when its first delivery falls due, None where it has none."""
    return dict(
        database.execute(
            """
            SELECT sid, (SELECT min(due_at) FROM deliveries AS d WHERE d.sid = s.sid AND due_at < 9e99)
            FROM subscriptions AS s WHERE prefix = ?""",
            (database.prefix,),
        ).fetchall()
    )


#: An outcome, with its dead letter as JSON and its outputs as values of the tables.
Settlement = tuple[Receipt, Outcome, str, Sequence[dedupe.WindowedMessage]]


def ack(database: Database, receipts: Sequence[Receipt]) -> list[int]:
    """Settle deliveries as handled, without outputs; return the indices of those that were refused."""
    parts: dict[tuple[int, int], list[int]] = {}
    last, seqs = receipts[0], list[int]()
    for receipt in receipts:
        if not seqs or receipt.claim != last.claim or receipt.sid != last.sid:
            seqs = parts.setdefault((receipt.sid, receipt.claim), [])
        seqs.append(receipt.seq)
        last = receipt
    # Usually all of them are held, and each claim is one statement. One that deletes one row or none needs no
    # savepoint to be undone.
    is_single = len(receipts) == 1
    if not is_single:
        database.execute("SAVEPOINT ack")
    are_all_held = all(_delete_claimed(database, *claim, seqs) for claim, seqs in parts.items())
    if not is_single:
        if not are_all_held:
            database.execute("ROLLBACK TO ack")
        database.execute("RELEASE ack")
    return [] if are_all_held else settle(database, [(receipt, ACKED, "", ()) for receipt in receipts])


def _delete_claimed(database: Database, sid: int, number: int, seqs: Sequence[int]) -> bool:
    """Delete deliveries of one claim; return whether all of them were there, each named once."""
    first, last = min(seqs), max(seqs)
    if last - first < len(set(seqs)):
        # They are all numbers of the range. It takes half as long as a list of them.
        deleted = database.execute(
            "DELETE FROM deliveries WHERE sid = ? AND seq BETWEEN ? AND ? AND claim = ?",
            (sid, first, last, number),
        )
    else:
        deleted = database.execute(
            """
            DELETE FROM deliveries
            WHERE sid = ? AND seq IN (SELECT value FROM json_each(?)) AND claim = ?""",
            (sid, json.dumps(seqs), number),
        )
    return deleted.rowcount == len(seqs)


def settle(database: Database, settlements: Sequence[Settlement]) -> list[int]:
    """Carry out the outcomes; return the indices of those that were refused."""
    held = still_held(database, [receipt for receipt, *_ in settlements])
    now = time.time()
    refused, done, released, delayed, dead = [], [], [], [], []
    emitted: list[dedupe.WindowedMessage] = []
    for index, (receipt, outcome, content, outputs) in enumerate(settlements):
        if receipt not in held:
            refused.append(index)
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
                database.changes.add_due(receipt.sid, now + seconds)
            case Dead():
                done.append(receipt)
                dead.append((content, receipt.sid, receipt.seq))
    dead_letters.add(database, dead)
    for sid, seqs in _by_subscription(done):
        database.execute(
            "DELETE FROM deliveries WHERE sid = ? AND seq IN (SELECT value FROM json_each(?))", (sid, seqs)
        )
    for sid, seqs in _by_subscription(released):
        # Due at 0, so that they come again in the order of the log; only an exclusive handle holds some
        # early.
        database.execute(
            """
            UPDATE deliveries SET claim = NULL, due_at = coalesce(retry_at, 0), deliveries = deliveries - 1
            WHERE sid = ? AND seq IN (SELECT value FROM json_each(?))""",
            (sid, seqs),
        )
        database.changes.add_due(sid, 0)
    if delayed:
        database.execute_many(
            """
            UPDATE deliveries
            SET claim = NULL, due_at = ?, failures = failures + 1, failed_at = coalesce(failed_at, ?)
            WHERE sid = ? AND seq = ?""",
            delayed,
        )
    if emitted:
        dedupe.append(database, emitted)
    return refused


def extend(database: Database, receipts: Sequence[Receipt], lease: float) -> list[int]:
    """Let the leases end `lease` seconds from now; return the indices of those that were lost."""
    held = still_held(database, receipts)
    for sid, seqs in _by_subscription(held):
        database.execute(
            "UPDATE deliveries SET due_at = ? WHERE sid = ? AND seq IN (SELECT value FROM json_each(?))",
            (time.time() + lease, sid, seqs),
        )
    return [index for index, receipt in enumerate(receipts) if receipt not in held]


def extend_claim(database: Database, claim: Claim, lease: float) -> Claim:
    """Let the leases of a claim end `lease` seconds from now; return the claim as it is then."""
    until = time.time() + lease
    database.execute(
        "UPDATE deliveries SET due_at = ? WHERE sid = ? AND due_at = ? AND claim = ?",
        (until, claim.sid, claim.until, claim.number),
    )
    return claim._replace(until=until)


def still_held(database: Database, receipts: Sequence[Receipt]) -> set[Receipt]:
    """Return those of the receipts whose delivery was neither settled nor claimed again."""
    leases: set[Receipt] = set()
    for sid, seqs in _by_subscription(receipts):
        # One row for all of them: after each row the thread must get the interpreter's lock back.
        (text,) = database.execute(
            """
            SELECT json_group_array(json_array(seq, claim)) FROM deliveries
            WHERE sid = ? AND seq IN (SELECT value FROM json_each(?))""",
            (sid, seqs),
        ).fetchone()
        leases.update(Receipt(sid, seq, claim) for seq, claim in json.loads(text))
    return leases.intersection(receipts)


def _by_subscription(receipts: Iterable[Receipt]) -> list[tuple[int, str]]:
    """Return the messages of each subscription as a JSON array, which SQL takes as a list."""
    found: dict[int, list[int]] = {}
    for receipt in receipts:
        found.setdefault(receipt.sid, []).append(receipt.seq)
    return [(sid, json.dumps(seqs)) for sid, seqs in found.items()]
