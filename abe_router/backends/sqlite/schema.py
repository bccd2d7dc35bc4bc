"""The tables of the file.

`messages` is one log for all keys, in the order of `seq`. A subscription has read it up to its `cursor`;
`deliveries` holds only what lies behind a cursor and is not settled: handed out, released, or waiting for
a retry. Publishing is one insert however many subscriptions there are, and an ack deletes one row.
`letters` are the dead letters; their messages stay in the log.

A message may be deleted once every subscription that matches its key is past it and no row of
`deliveries` or `letters` names it; see `trim`.
"""

from __future__ import annotations

import sqlite3

from abe_router.errors import BackendError

#: Marks a SQLite file as ours (`PRAGMA application_id`): "aber" in ASCII.
APPLICATION = 0x61626572
#: The version of the tables (`PRAGMA user_version`).
VERSION = 1

# `AUTOINCREMENT` because a number must never be given twice: cursors, receipts and dead-letter ids keep them.
# `body` comes last, so that what precedes it is read without following the pages of a large payload.
_TABLES = (
    """
    CREATE TABLE keys (
        kid INTEGER PRIMARY KEY AUTOINCREMENT,
        prefix TEXT NOT NULL,
        key TEXT NOT NULL,
        UNIQUE (prefix, key)
    )""",
    """
    CREATE TABLE messages (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        kid INTEGER NOT NULL,
        published_at REAL NOT NULL DEFAULT ((julianday('now') - 2440587.5) * 86400),
        id TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))),
        headers TEXT,
        body BLOB NOT NULL
    )""",
    # An index ends with the row's own number, so this one is in the order of (kid, seq).
    "CREATE INDEX messages_by_key ON messages (kid)",
    """
    CREATE TABLE subscriptions (
        sid INTEGER PRIMARY KEY AUTOINCREMENT,
        prefix TEXT NOT NULL,
        pattern TEXT NOT NULL,
        "group" TEXT NOT NULL,
        cursor INTEGER NOT NULL,
        UNIQUE (prefix, pattern, "group")
    )""",
    # `claim` names the fetch that holds the lease, NULL when nobody does. `due` is when the row may be
    # handed out again: the end of the lease or of the delay, 0 for at once. `retry_at` is the end of the
    # delay of what an exclusive handle has in hand.
    """
    CREATE TABLE deliveries (
        sid INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        claim INTEGER,
        due REAL NOT NULL,
        deliveries INTEGER NOT NULL,
        failures INTEGER NOT NULL,
        failed_at REAL,
        retry_at REAL,
        PRIMARY KEY (sid, seq)
    ) WITHOUT ROWID""",
    "CREATE INDEX deliveries_by_due ON deliveries (sid, due)",
    """
    CREATE TABLE letters (
        lid INTEGER PRIMARY KEY AUTOINCREMENT,
        sid INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        letter TEXT NOT NULL
    )""",
    # Which exclusive handle has, or had, a subscription to itself, and until when; see `place`.
    """
    CREATE TABLE places (
        sid INTEGER PRIMARY KEY,
        owner INTEGER NOT NULL,
        until REAL NOT NULL
    )""",
    "CREATE INDEX letters_by_subscription ON letters (sid)",
    "CREATE INDEX letters_by_message ON letters (seq)",
    """
    CREATE TABLE announcements (
        prefix TEXT NOT NULL,
        worker TEXT NOT NULL,
        state BLOB NOT NULL,
        expires_at REAL NOT NULL,
        PRIMARY KEY (prefix, worker)
    ) WITHOUT ROWID""",
    # What callers of `trim` want kept, each `until` it counts no longer; see `retention`.
    """
    CREATE TABLE retention (
        prefix TEXT NOT NULL,
        pattern TEXT NOT NULL,
        seconds REAL NOT NULL,
        until REAL NOT NULL,
        PRIMARY KEY (prefix, pattern, seconds)
    ) WITHOUT ROWID""",
    # Ids by which messages are known again, until when; see `ids`.
    """
    CREATE TABLE ids (
        kid INTEGER NOT NULL,
        id TEXT NOT NULL,
        until REAL NOT NULL,
        PRIMARY KEY (kid, id)
    ) WITHOUT ROWID""",
    "CREATE INDEX ids_by_end ON ids (until)",
    # `used_until` is when the tokens given so far are used up at the permitted rate, since the epoch.
    """
    CREATE TABLE rates (
        prefix TEXT NOT NULL,
        name TEXT NOT NULL,
        used_until REAL NOT NULL,
        PRIMARY KEY (prefix, name)
    ) WITHOUT ROWID""",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {VERSION}",
)


def is_current(connection: sqlite3.Connection) -> bool:
    """Say whether the file has our tables, False when it is empty; raise BackendError when it has others'."""
    # In this order, for the tables and their marks appear in one commit: who sees tables sees the marks.
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if tables and application != APPLICATION:
        raise BackendError("it is a SQLite database of another program")
    if version > VERSION:
        raise BackendError(
            f"a newer abe-router wrote it (version {version} of the tables, not {VERSION}): upgrade this one"
        )
    return bool(tables)


def create(connection: sqlite3.Connection) -> None:
    """Make the tables, inside the caller's transaction."""
    for statement in _TABLES:
        connection.execute(statement)
