"""The backlog of a pattern, and the table of the keys that match it."""

from __future__ import annotations

from contextlib import suppress

import pytest

from abe_router.backends.sqlite import backlog, log
from abe_router.backends.sqlite.database import Database
from abe_router.backends.sqlite.file import File
from abe_router.messages.message import new_message

PATTERN = "orders.*"


@pytest.fixture
def database(tmp_path):
    """Yield a database; everything here runs in one thread."""
    found = Database(File(tmp_path / "queue.db", "full"), "")
    yield found
    found.close()


def append(database, *keys):
    log.append(database, [log.encode(new_message(key, b"1")) for key in keys])


def upcoming(database, after=0):
    return backlog.upcoming(database, PATTERN, after, 100)


def instructions(database, action):
    """Return how many hundreds of SQLite's instructions an action takes."""
    steps = []
    database.connection.set_progress_handler(lambda: steps.append(1), 100)
    try:
        action()
    finally:
        database.connection.set_progress_handler(None, 0)
    return len(steps)


def test_messages_of_another_key_are_skipped_also_those_of_keys_that_come_later(database):
    with database.writing():
        append(database, "orders.a", "bills.a", "orders.b")
        assert upcoming(database) == [1, 3]
        append(database, "orders.c", "bills.b", "orders.a")
        assert upcoming(database) == [1, 3, 4, 6]
        assert backlog.first(database, PATTERN, 4) == 6
        assert backlog.first(database, PATTERN, 6) is None
        assert log.count(database, PATTERN, 1) == 3


def test_numbers_of_keys_that_were_rolled_back_may_be_those_of_other_keys(database):
    with database.writing():
        append(database, "orders.a", "orders.b")
        assert upcoming(database) == [1, 2]
    with suppress(RuntimeError), database.writing():
        append(database, "orders.c", "bills.a")
        assert upcoming(database) == [1, 2, 3]
        raise RuntimeError("rolled back")
    with database.writing():
        append(database, "bills.a", "orders.c")
        assert upcoming(database) == [1, 2, 4]


def test_keys_of_several_patterns_are_kept_apart(database):
    with database.writing():
        append(database, "orders.a", "bills.a")
        for pattern, found in {"orders.*": [1], "bills.*": [2], "#": [1, 2], "shop.*": []}.items():
            assert backlog.upcoming(database, pattern, 0, 100) == found
        append(database, "shop.a", "orders.b")
        for pattern, found in {"orders.*": [1, 4], "bills.*": [2], "#": [1, 2, 3, 4], "shop.*": [3]}.items():
            assert backlog.upcoming(database, pattern, 0, 100) == found


def test_another_connection_has_its_own_table(database, tmp_path):
    with database.writing():
        append(database, "orders.a")
        assert upcoming(database) == [1]
    other = Database(File(tmp_path / "queue.db", "full"), "")
    with other.writing():
        append(other, "orders.b", "bills.a")
        assert upcoming(other) == [1, 2]
    other.close()
    with database.reading():
        assert upcoming(database) == [1, 2]


def test_cost_of_a_message_does_not_depend_on_the_number_of_keys(database):
    few, many = [f"orders.k{n}" for n in range(100)], [f"orders.k{n}" for n in range(5000)]
    costs = []
    for keys in (few, many):
        with database.writing():
            append(database, *keys)
            after = log.end(database) - 50
            assert len(upcoming(database, after)) == 50  # the table has the keys now
            costs.append(instructions(database, lambda: upcoming(database, after)))  # noqa: B023
            first = instructions(database, lambda: backlog.first(database, PATTERN, after))  # noqa: B023
        assert first < 10
    assert costs[1] <= 1.5 * costs[0] + 1
