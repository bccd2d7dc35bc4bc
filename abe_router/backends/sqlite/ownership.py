"""Ownership of a subscription by one exclusive handle at a time, leased like a delivery.

The number of the owner is the upper part of every claim of the handle, so a claim tells which handle made it.
The lower part counts the fetches of the handle.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from abe_router.backend import Delivery
from abe_router.backends.sqlite import backlog, lease
from abe_router.backends.sqlite.database import Database
from abe_router.backends.sqlite.lease import Claim, Receipt
from abe_router.backends.sqlite.registry import SubscriptionSpec, advance, find, find_or_create

#: How often a handle looks whether ownership is free, in seconds.
POLL_INTERVAL = 0.25
#: How many bits of a claim count the fetches, and how many are the number of the owner.
_COUNT_BITS, _OWNER_BITS = 22, 40

# What the owner may deliver again, due or not: rows without a lease, and rows whose lease ended that was
# given to a handle that is not the owner.
_AGAIN = """
    SELECT seq FROM deliveries
    WHERE sid = ? AND (claim IS NULL OR (due_at <= ? AND claim >> 22 != ?)) ORDER BY seq LIMIT ?"""
_CLAIM_AGAIN = f"""
    UPDATE deliveries SET claim = ?, due_at = ?, deliveries = deliveries + 1,
        retry_at = CASE WHEN claim IS NULL AND due_at > ? THEN due_at ELSE retry_at END
    WHERE sid = ? AND seq IN ({_AGAIN})"""  # noqa: S608  of constants
_LEASED_BY_OTHERS = "SELECT 1 FROM deliveries WHERE sid = ? AND due_at > ? AND claim >> 22 != ? LIMIT 1"
_TAKE_OVER = (
    "UPDATE deliveries SET claim = NULL, due_at = coalesce(retry_at, 0) WHERE sid = ? AND claim NOT NULL"
)
_TAKE_BACK = """
    UPDATE deliveries SET claim = NULL, due_at = coalesce(retry_at, 0), deliveries = deliveries - 1
    WHERE sid = ? AND claim = ?"""

_OWNER = "SELECT CAST(owner AS INTEGER), CAST(expires_at AS REAL) FROM owners WHERE sid = ?"
_TAKE_BACK_UNKNOWN = """
    UPDATE deliveries SET claim = NULL, due_at = coalesce(retry_at, 0)
    WHERE sid = ? AND claim >> 22 = ? AND seq NOT IN (SELECT value FROM json_each(?))"""


def new_owner() -> int:
    """Return a random number for a handle, which no other handle has."""
    return secrets.randbits(_OWNER_BITS)


def claim_number(owner: int, count: int) -> int:
    """Return the claim of the fetch number `count` of a handle."""
    return (owner << _COUNT_BITS) + (count & ((1 << _COUNT_BITS) - 1))


class AcquireRequest(NamedTuple):
    """A fetch of an exclusive handle: at most `limit` deliveries for `lease` seconds, under a claim.

    `unconfirmed` are the claims of earlier fetches whose result did not reach the handle. `held` are the
    messages that the handle has, after the content of the file was replaced, and otherwise None. The new
    content may lease other messages to the handle, which it settled long ago; those are taken back.
    """

    spec: SubscriptionSpec
    owner: int
    claim: int
    limit: int
    lease: float
    unconfirmed: Sequence[int]
    held: Sequence[int] | None = None


def acquirable(database: Database, request: AcquireRequest) -> tuple[int, float]:
    """Return the number of the subscription, and in how many seconds `acquire` may change anything.

    Write nothing.
    """
    found, now = find(database, request.spec), time.time()
    if found is None:
        return 0, 0.0
    sid, cursor = found
    owner, expires_at = _owner(database, sid)
    if owner != request.owner:
        return sid, _free_in(database, sid, owner, expires_at, now)
    renew_in = expires_at - now - request.lease * 2 / 3
    if renew_in <= 0 or request.unconfirmed or request.held is not None:
        return sid, 0.0
    again = database.execute(_AGAIN, (sid, now, owner, 1))
    seq = backlog.first(database, request.spec.pattern, max(cursor, database.scanned.get(sid, 0)))
    return sid, 0.0 if again.fetchone() or seq is not None else renew_in


def acquire(database: Database, request: AcquireRequest) -> tuple[Claim, float]:
    """Acquire or renew ownership if it is free, and lease deliveries.

    Return the claim, and in how many seconds to try again when it is empty.
    """
    sid, cursor = find_or_create(database, request.spec)
    now = time.time()
    number, until = request.claim, now + request.lease
    owner, expires_at = _owner(database, sid)
    if owner != request.owner:
        if seconds := _free_in(database, sid, owner, expires_at, now):
            return Claim(sid, number, until, 0), seconds
        database.execute(_TAKE_OVER, (sid,))
    database.execute_many(_TAKE_BACK, [(sid, claim) for claim in request.unconfirmed])
    if request.held is not None:
        database.execute(_TAKE_BACK_UNKNOWN, (sid, request.owner, json.dumps(request.held)))
    database.execute(
        "INSERT OR REPLACE INTO owners (sid, owner, expires_at) VALUES (?, ?, ?)", (sid, request.owner, until)
    )
    again = database.execute(
        _CLAIM_AGAIN, (number, until, now, sid, sid, now, request.owner, request.limit)
    ).rowcount
    new = 0
    if again < request.limit:
        after = max(cursor, database.scanned.get(sid, 0))
        new = backlog.take(database, request.spec.pattern, after, request.limit - again, (sid, number, until))
    if new:
        advance(database, sid, new)
    return Claim(sid, number, until, again + new), request.lease / 3


def read(database: Database, claim: Claim) -> list[Delivery]:
    """Return what was claimed, in the order of the log, each with the seconds until it is due."""
    deliveries = lease.read(database, claim)
    now = time.time()
    retry_at = dict(
        database.execute(
            "SELECT seq, retry_at FROM deliveries"
            " WHERE sid = ? AND due_at = ? AND claim = ? AND retry_at > ? AND retry_at < 9e99",
            (claim.sid, claim.until, claim.number, now),
        ).fetchall()
    )
    return [
        msgspec.structs.replace(each, wait=retry_at[each.receipt.seq] - now)
        if each.receipt.seq in retry_at
        else each
        for each in deliveries
    ]


def postpone(
    database: Database, failed: Sequence[tuple[Receipt, float]], number: int, lease_seconds: float
) -> tuple[set[Receipt], float]:
    """Count failures and lease their rows again under a new claim.

    `failed` has the seconds until each retry. Return the receipts that were still held, and the time.
    """
    held, now = lease.still_held(database, [receipt for receipt, _ in failed]), time.time()
    database.execute_many(
        """
        UPDATE deliveries SET claim = ?, due_at = ?, retry_at = ?, deliveries = deliveries + 1,
            failures = failures + 1, failed_at = coalesce(failed_at, ?)
        WHERE sid = ? AND seq = ?""",
        [
            (number, now + lease_seconds, now + wait, now, receipt.sid, receipt.seq)
            for receipt, wait in failed
            if receipt in held
        ],
    )
    return held, now


def renew(database: Database, sids: Iterable[int], owner: int, lease_seconds: float) -> None:
    """Let ownership end `lease_seconds` from now, where it is the handle's."""
    database.execute_many(
        "UPDATE owners SET expires_at = ? WHERE sid = ? AND owner = ?",
        [(time.time() + lease_seconds, sid, owner) for sid in sids],
    )


def release(database: Database, spec: SubscriptionSpec, owner: int) -> None:
    """End ownership, if it is the handle's."""
    found = find(database, spec)
    if found is not None:
        sid, _ = found
        database.execute("UPDATE owners SET expires_at = 0 WHERE sid = ? AND owner = ?", (sid, owner))
        database.changes.add_due(sid, 0)


def _owner(database: Database, sid: int) -> tuple[int, float]:
    """Return the last owner and until when it owns the subscription; -1 when it never had one."""
    found = database.execute(_OWNER, (sid,)).fetchone()
    return found or (-1, 0.0)


def _free_in(database: Database, sid: int, owner: int, expires_at: float, now: float) -> float:
    """Return in how many seconds to look again for ownership that another handle has, 0 when it is free."""
    if expires_at > now:
        return min(expires_at - now, POLL_INTERVAL)
    is_leased = database.execute(_LEASED_BY_OTHERS, (sid, now, owner)).fetchone()
    return POLL_INTERVAL if is_leased else 0.0
