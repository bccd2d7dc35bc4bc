"""The tables of the file.

`messages` is one log for all keys, in the order of `seq`. A subscription has read the log up to its
`cursor`. `deliveries` holds only messages at or before a cursor that are not settled: leased, released, or
waiting for a retry. Publishing is one insert for any number of subscriptions, and an ack deletes one row.
The message of a dead letter stays in the log.

A message may be deleted once the cursor of every subscription that matches its key is past it, and no row of
`deliveries` or `dead_letters` names it; see `retention`.

`key_id` numbers a routing key and `sid` a subscription. All times are in seconds since the epoch.
"""

from __future__ import annotations

import sqlite3

from abe_router.errors import BackendError

#: Marks a SQLite file as ours (`PRAGMA application_id`): "aber" in ASCII.
APPLICATION_ID = 0x61626572
#: The version of the tables (`PRAGMA user_version`).
VERSION = 3

# `AUTOINCREMENT` never gives a number twice: cursors, receipts, dead-letter ids and revisions depend on it.
# `body` is the last column, so that the others are read without following the pages of a large payload.
_TABLES = (
    """
    CREATE TABLE keys (
        key_id INTEGER PRIMARY KEY AUTOINCREMENT,
        prefix TEXT NOT NULL,
        key TEXT NOT NULL,
        UNIQUE (prefix, key)
    )""",
    """
    CREATE TABLE messages (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        key_id INTEGER NOT NULL,
        published_at REAL NOT NULL DEFAULT ((julianday('now') - 2440587.5) * 86400),
        id TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))),
        headers TEXT,
        body BLOB NOT NULL
    )""",
    # SQLite appends the row's own number to an index, so this one is in the order of (key_id, seq).
    "CREATE INDEX messages_by_key ON messages (key_id)",
    # `claimed` counts the messages that were taken from the backlog, as `cursor` moved over them.
    """
    CREATE TABLE subscriptions (
        sid INTEGER PRIMARY KEY AUTOINCREMENT,
        prefix TEXT NOT NULL,
        pattern TEXT NOT NULL,
        "group" TEXT NOT NULL,
        cursor INTEGER NOT NULL,
        claimed INTEGER NOT NULL DEFAULT 0,
        UNIQUE (prefix, pattern, "group")
    )""",
    # `claim` is the fencing token: the number of the fetch that holds the lease, NULL without a lease.
    # `due_at` is when the row may be delivered again: the end of the lease or of the delay, 0 for at once.
    # `retry_at` is the end of the delay of a row that an exclusive handle holds. `replays` counts the replays
    # of the message, and `former` is the dead letter that the last one moved.
    """
    CREATE TABLE deliveries (
        sid INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        claim INTEGER,
        due_at REAL NOT NULL,
        deliveries INTEGER NOT NULL,
        failures INTEGER NOT NULL,
        failed_at REAL,
        retry_at REAL,
        replays INTEGER NOT NULL DEFAULT 0,
        former INTEGER,
        PRIMARY KEY (sid, seq)
    ) WITHOUT ROWID""",
    "CREATE INDEX deliveries_by_due_at ON deliveries (sid, due_at)",
    # `content` is the dead letter as JSON, without the body of its message. `replays` and `former` are those
    # of its delivery.
    """
    CREATE TABLE dead_letters (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        sid INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        replays INTEGER NOT NULL,
        former INTEGER,
        content TEXT NOT NULL
    )""",
    "CREATE INDEX dead_letters_by_subscription ON dead_letters (sid)",
    "CREATE INDEX dead_letters_by_message ON dead_letters (seq)",
    # Which exclusive handle owns a subscription, or owned it last; see `ownership`.
    """
    CREATE TABLE owners (
        sid INTEGER PRIMARY KEY,
        owner INTEGER NOT NULL,
        expires_at REAL NOT NULL
    )""",
    # The key-value store; an entry without `expires_at` stays. See `key_value`.
    """
    CREATE TABLE entries (
        revision INTEGER PRIMARY KEY AUTOINCREMENT,
        prefix TEXT NOT NULL,
        bucket TEXT NOT NULL,
        name TEXT NOT NULL,
        expires_at REAL,
        value BLOB NOT NULL,
        UNIQUE (prefix, bucket, name)
    )""",
    "CREATE INDEX entries_by_expiry ON entries (expires_at) WHERE expires_at IS NOT NULL",
    # `used_until` is the state of a rate limiter: when the tokens granted so far are used up at its rate.
    """
    CREATE TABLE rates (
        prefix TEXT NOT NULL,
        name TEXT NOT NULL,
        used_until REAL NOT NULL,
        PRIMARY KEY (prefix, name)
    ) WITHOUT ROWID""",
    # How long the callers of `trim` keep messages; see `retention`.
    """
    CREATE TABLE retention (
        prefix TEXT NOT NULL,
        pattern TEXT NOT NULL,
        seconds REAL NOT NULL,
        expires_at REAL NOT NULL,
        PRIMARY KEY (prefix, pattern, seconds)
    ) WITHOUT ROWID""",
    # The message ids of open deduplication windows; see `dedupe`.
    """
    CREATE TABLE dedupe_ids (
        key_id INTEGER NOT NULL,
        id TEXT NOT NULL,
        expires_at REAL NOT NULL,
        PRIMARY KEY (key_id, id)
    ) WITHOUT ROWID""",
    "CREATE INDEX dedupe_ids_by_expiry ON dedupe_ids (expires_at)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)


def is_current(connection: sqlite3.Connection) -> bool:
    """Return whether the file has our tables, False when it is empty.

    Raise BackendError when the tables are of another program or of another version.
    """
    # The tables and their marks appear in one commit. Tables are looked for first, so that tables without
    # marks cannot be ours.
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if tables and application != APPLICATION_ID:
        raise BackendError("it is a SQLite database of another program")
    if version > VERSION:
        raise BackendError(
            f"a newer abe-router wrote it (version {version} of the tables, not {VERSION}): upgrade this one"
        )
    if tables and version < VERSION:
        raise BackendError(
            f"an older abe-router wrote it (version {version} of the tables, not {VERSION}): name a new file"
        )
    return bool(tables)


def create(connection: sqlite3.Connection) -> None:
    """Create the tables, inside the caller's transaction."""
    for statement in _TABLES:
        connection.execute(statement)
