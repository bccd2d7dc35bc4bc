"""Subscriptions as rows: where each has got to in the log, and its counts."""

from __future__ import annotations

import logging
import math
import time
from typing import NamedTuple

from abe_router.backend import SubscriptionStatus
from abe_router.backends.sqlite import log
from abe_router.backends.sqlite.database import Database

_log = logging.getLogger(__name__)


class Group(NamedTuple):
    """The name of a subscription, and where it begins when it does not exist, in seconds since the epoch."""

    pattern: str
    group: str
    start: float = 0.0


def find(database: Database, group: Group) -> tuple[int, int] | None:
    """Return the number of the subscription and its place in the log, None if it does not exist."""
    found: tuple[int, int] | None = database.execute(
        'SELECT sid, cursor FROM subscriptions WHERE prefix = ? AND pattern = ? AND "group" = ?',
        (database.prefix, group.pattern, group.group),
    ).fetchone()
    return found


def begin(database: Database, group: Group) -> tuple[int, int]:
    """Make the subscription and return its number and place; if it exists, just return them."""
    found = find(database, group)
    if found is None:
        cursor = log.end(database) if group.start == math.inf else log.place(database, group.start)
        made = database.execute(
            'INSERT INTO subscriptions (prefix, pattern, "group", cursor) VALUES (?, ?, ?, ?)',
            (database.prefix, group.pattern, group.group, cursor),
        )
        found = (made.lastrowid or 0, cursor)
    return found


def drop(database: Database, group: Group) -> bool:
    """Forget the subscription with its deliveries and dead letters; say whether there was one."""
    found = find(database, group)
    if found is None:
        return False
    for statement in (
        "DELETE FROM deliveries WHERE sid = ?",
        "DELETE FROM places WHERE sid = ?",
        "DELETE FROM letters WHERE sid = ?",
        "DELETE FROM subscriptions WHERE sid = ?",
    ):
        database.execute(statement, found[:1])
    database.news.all = True  # a waiting fetch begins it anew at once, before there is something to miss
    return True


def status(database: Database) -> list[SubscriptionStatus]:
    """Return the counts of every subscription.

    A delivery whose lease ran out is ready again; one that failed is delayed until it is fetched, or, in the
    hand of an exclusive handle, until it is due.
    """
    now = time.time()
    rows = database.execute(
        """
        SELECT s.pattern, s."group", s.cursor, d.held, d.early, d.delayed, d.unsettled,
            (SELECT count(*) FROM letters AS l WHERE l.sid = s.sid)
        FROM subscriptions AS s LEFT JOIN (
            SELECT sid,
                sum(claim IS NOT NULL AND due > ?) AS held,
                sum(claim IS NOT NULL AND due > ? AND retry_at > ?) AS early,
                sum(claim IS NULL AND failures > 0) AS delayed,
                count(*) AS unsettled
            FROM deliveries GROUP BY sid
        ) AS d USING (sid)
        WHERE s.prefix = ? ORDER BY s.pattern, s."group" """,
        (now, now, now, database.prefix),
    ).fetchall()
    found = []
    for pattern, group, cursor, held, early, delayed, unsettled, dead in rows:
        in_flight, later = (held or 0) - (early or 0), (delayed or 0) + (early or 0)
        ready = log.count(database, pattern, cursor) + (unsettled or 0) - in_flight - later
        found.append(SubscriptionStatus(pattern, group, ready, in_flight, later, dead))
    return found
