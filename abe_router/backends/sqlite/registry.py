"""Subscriptions as rows: where each has got to in the log, and its counts."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

from abe_router.backend import SubscriptionStatus
from abe_router.backends.sqlite import backlog, log
from abe_router.backends.sqlite.changes import BacklogCount
from abe_router.backends.sqlite.database import Database


class SubscriptionSpec(NamedTuple):
    """The name of a subscription, and where it begins when it is created, in seconds since the epoch."""

    pattern: str
    group: str
    start: float = 0.0


#: The cursor of a subscription `s`. Where another program damaged it, it is at the last delivery.
_CURSOR = """iif(typeof(s.cursor) = 'integer' AND s.cursor >= 0, s.cursor,
        coalesce((SELECT max(seq) FROM deliveries AS d WHERE d.sid = s.sid), 0))"""
_FIND = f"""
    SELECT s.sid, {_CURSOR} FROM subscriptions AS s
    WHERE prefix = ? AND pattern = ? AND "group" = ?"""  # noqa: S608  a constant


def find(database: Database, spec: SubscriptionSpec) -> tuple[int, int] | None:
    """Return the number of the subscription and its cursor, None if it does not exist."""
    found: tuple[int, int] | None = database.execute(
        _FIND,
        (database.prefix, spec.pattern, spec.group),
    ).fetchone()
    return found


def find_or_create(database: Database, spec: SubscriptionSpec) -> tuple[int, int]:
    """Return the number of the subscription and its cursor; create it if it does not exist."""
    found = find(database, spec)
    if found is None:
        cursor = log.end(database) if spec.start == math.inf else log.last_before(database, spec.start)
        created = database.execute(
            'INSERT INTO subscriptions (prefix, pattern, "group", cursor) VALUES (?, ?, ?, ?)',
            (database.prefix, spec.pattern, spec.group, cursor),
        )
        found = (created.lastrowid or 0, cursor)
    return found


def advance(database: Database, sid: int, claimed: int) -> None:
    """Move the cursor over the messages that were claimed from the backlog, and count them."""
    database.execute(
        """
        UPDATE subscriptions
        SET cursor = (SELECT max(seq) FROM deliveries WHERE sid = ?), claimed = claimed + ?
        WHERE sid = ?""",
        (sid, claimed, sid),
    )


def drop(database: Database, spec: SubscriptionSpec) -> bool:
    """Delete the subscription with its deliveries and dead letters; return whether it existed."""
    found = find(database, spec)
    if found is None:
        return False
    for statement in (
        "DELETE FROM deliveries WHERE sid = ?",
        "DELETE FROM owners WHERE sid = ?",
        "DELETE FROM dead_letters WHERE sid = ?",
        "DELETE FROM subscriptions WHERE sid = ?",
    ):
        database.execute(statement, found[:1])
    # A waiting fetch creates it again at once, before there is a message to miss.
    database.changes.everything = True
    return True


#: The counts of the deliveries of each subscription. A delivery whose lease ended is ready again. A failed
#: one is delayed until it is fetched or, held by an exclusive handle, until it is due. `waiting` is the
#: first message that is ready.
_STATUS = f"""
    SELECT s.sid, CAST(s.pattern AS TEXT), CAST(s."group" AS TEXT), {_CURSOR},
        CAST(s.claimed AS INTEGER),
        d.leased, d.postponed, d.delayed, d.unsettled, d.waiting, d.next_due_at,
        (SELECT count(*) FROM dead_letters AS l WHERE l.sid = s.sid)
    FROM subscriptions AS s LEFT JOIN (
        SELECT sid,
            sum(claim IS NOT NULL AND due_at > :now) AS leased,
            sum(claim IS NOT NULL AND due_at > :now AND retry_at > :now) AS postponed,
            sum(claim IS NULL AND failures > 0) AS delayed,
            count(*) AS unsettled,
            min(CASE WHEN iif(claim IS NULL, failures = 0, due_at <= :now) THEN seq END) AS waiting,
            min(CASE
                WHEN claim IS NULL AND failures > 0 THEN due_at
                WHEN claim IS NOT NULL AND due_at > :now AND retry_at > :now THEN retry_at
            END) AS next_due_at
        FROM deliveries GROUP BY sid
    ) AS d USING (sid)
    WHERE s.prefix = :prefix ORDER BY s.pattern, s."group" """  # noqa: S608  of constants


def status(database: Database) -> list[SubscriptionStatus]:
    """Return the counts of every subscription and the time of its oldest ready message.

    The oldest message takes one index seek for each key of the pattern, whatever the backlog. The counts take
    a walk over the deliveries, and over those keys of the log that were appended since the last call. Only
    the first call of a connection walks over the whole backlog.
    """
    rows = database.connection.execute(_STATUS, {"now": time.time(), "prefix": database.prefix}).fetchall()
    end = log.end(database)
    found, counted = [], {}
    for (
        sid,
        pattern,
        group,
        cursor,
        claimed,
        leased,
        postponed,
        failed,
        unsettled,
        waiting,
        due,
        dead,
    ) in rows:
        in_flight, delayed = (leased or 0) - (postponed or 0), (failed or 0) + (postponed or 0)
        unclaimed = _unclaimed(database, sid, pattern, cursor, claimed)
        counted[sid] = BacklogCount(end, claimed, unclaimed)
        ready = unclaimed + (unsettled or 0) - in_flight - delayed
        oldest_at = _oldest_at(database, sid, pattern, cursor, waiting)
        found.append(SubscriptionStatus(pattern, group, ready, in_flight, delayed, dead, oldest_at, due))
    database.counted = counted
    return found


def _unclaimed(database: Database, sid: int, pattern: str, cursor: int, claimed: int) -> int:
    """Return how many messages of the backlog the subscription has not claimed."""
    last = database.counted.get(sid)
    if last is None or cursor > last.end:
        return log.count(database, pattern, cursor)
    # What was counted lies before `last.end` and what is new after it. Retention deletes neither before the
    # subscription has claimed it.
    return last.unclaimed - (claimed - last.claimed) + log.count(database, pattern, last.end)


def _oldest_at(database: Database, sid: int, pattern: str, cursor: int, waiting: int | None) -> float | None:
    """Return when the oldest ready message was accepted; `waiting` is the first among the deliveries."""
    # Deliveries are of messages before the cursor, so they are older than the backlog.
    seq = waiting
    if seq is None:
        seq = backlog.first_by_key(database, pattern, max(cursor, database.scanned.get(sid, 0)))
    if seq is None:
        return None
    row = database.execute("SELECT CAST(published_at AS REAL) FROM messages WHERE seq = ?", (seq,)).fetchone()
    return None if row is None else float(row[0])
