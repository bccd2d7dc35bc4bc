"""Damaged SQLite files: rows that another program wrote, and bytes that changed on the disk."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random

from abe_router.backend import ACKED, RELEASED, Backend, Outcome
from abe_router.backends.sqlite import SQLiteBackend
from abe_router.errors import BackendError
from abe_router.messages.message import Message
from abe_router.operations.dead_letters import list_dead_letters
from abe_router.runtime.heartbeat import WORKERS
from fuzz.corpus import Corpus
from fuzz.target.target import Input, Target, demand
from fuzz.working import Working

#: The tables with rows that the cases damage. `keys` and `subscriptions` name everything else.
_TABLES = (
    *("keys", "messages", "messages", "messages", "subscriptions", "deliveries", "deliveries"),
    *("dead_letters", "dead_letters", "owners", "entries", "rates", "retention", "dedupe_ids"),
)
#: Without 2^63 - 1: a table whose row has that number accepts no other row.
_VALUES = (
    *("NULL", "'abc'", "''", "x''", "x'ff00'", "CAST(x'ff41' AS TEXT)", "CAST(x'00' AS TEXT)", "9e999"),
    *("-9e999", "-1", "0", "4611686018427387904", "-9223372036854775808", "1e308", "0.5", "'{}'", "'[1]'"),
    *("'{\"abe-hops\": 5}'", '\'{"abe-hops": "' + "9" * 5000 + "\"}'", "zeroblob(100000)"),
    *("'" + "[" * 3000 + "'", '\'{"a":' + '{"a":' * 3000 + "'", "'2'", "2", "x'7b7d'", "'\x1b[2J'"),
)


class RowTarget(Target):
    """Damages values in a file with messages in every state, then uses the file."""

    name = "row"
    about = (
        "damaged rows of a SQLite file give documented errors or dead letters; the next message is handled"
    )
    seconds = 4.0

    def open(self, folder: Path) -> None:
        """Make the file that the cases copy."""
        super().open(folder)
        self._filled, self._path = folder / "filled.db", folder / "queue.db"
        asyncio.run(_fill(self._filled))
        with sqlite3.connect(self._filled) as connection:
            self._columns = {
                table: [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
                for table in set(_TABLES)
            }
        connection.close()

    def make(self, random: Random, corpus: Corpus) -> Input:  # noqa: ARG002
        """Return some updates: table, column by number, row by number, value."""
        return [
            [random.choice(_TABLES), random.randrange(9), random.randrange(6), random.choice(_VALUES)]
            for _ in range(random.choice((1, 1, 1, 2, 4)))
        ]

    def check(self, given: Input) -> None:
        """Damage a copy; every operation ends as documented, and a message of another key is handled."""
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        shutil.copy(self._filled, self._path)
        with sqlite3.connect(self._path) as connection:
            for table, column, row, value in given:
                names = self._columns[table]
                name = names[column % len(names)]
                statement = (
                    f'UPDATE OR IGNORE {table} SET "{name}" = {value} WHERE "{names[0]}" IN '  # noqa: S608
                    f'(SELECT "{names[0]}" FROM {table} LIMIT 1 OFFSET {row})'
                )
                try:
                    connection.execute(statement)
                except sqlite3.Error:  # the column does not take the value
                    continue
        connection.close()
        asyncio.run(use(SQLiteBackend(self._path)))


class PageTarget(Target):
    """Changes bytes of the file itself, as a faulty disk does."""

    name = "page"
    about = "a SQLite file with changed bytes gives documented errors only"
    short = 300
    seconds = 4.0

    def open(self, folder: Path) -> None:
        """Make the file that the cases copy."""
        super().open(folder)
        self._filled, self._path = folder / "filled.db", folder / "queue.db"
        asyncio.run(_fill(self._filled))

    def make(self, random: Random, corpus: Corpus) -> Input:  # noqa: ARG002
        """Return positions, as a share of the file, and the bytes that go there."""
        return [
            [
                random.choice((random.random(), random.random() * 0.02)),
                random.randbytes(random.choice((1, 4, 200))),
            ]
            for _ in range(random.choice((1, 2, 5, 20)))
        ]

    def check(self, given: Input) -> None:
        """Damage a copy; every operation returns or raises a documented error."""
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        content = bytearray(self._filled.read_bytes())
        for share, change in given:
            start = int(share * (len(content) - len(change)))
            content[start : start + len(change)] = change
        self._path.write_bytes(content)
        asyncio.run(_use_lost(SQLiteBackend(self._path)))


async def _fill(path: Path) -> None:
    async with SQLiteBackend(path) as backend:
        await fill(backend)
        await backend.trim({"odd": 60.0})
    with sqlite3.connect(path) as connection:  # without a write-ahead log the file alone holds all
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


async def fill(backend: Backend) -> None:
    """Store messages, deliveries, dead letters, entries and ids, for the key `odd` and for others."""
    odd = await backend.subscribe_exclusive("odd", "x", lease=0.2)
    await backend.subscribe("odd", "g", lease=0.2)
    every = await backend.subscribe("#", "every", lease=0.2)

    async def fail(_: Message) -> None:
        raise ValueError("no stock")

    for n in range(4):
        await backend.publish("odd", n, id=f"odd-{n}", headers={"a": "b"})
    await backend.publish("odd", 9, id="odd-once", window=60.0)
    async with Working(backend, "odd", fail) as working:
        await working.until(lambda: working.dead.total() >= 3, "three dead letters")
    await backend.publish("odd", 10, id="odd-new")
    await odd.fetch(2, 0.5)
    await every.fetch(2, 0.5)
    await backend.put(WORKERS, "odd", b"{}")
    await backend.put("other", "odd", b"1", ttl=60.0)
    await backend.take_tokens("odd", 100.0, 1)


async def use(backend: Backend) -> None:
    """Use all that `fill` has stored; demand that a message of another key is handled meanwhile."""

    async def handle(_: Message) -> None:
        pass

    async with backend:
        async with Working(backend, "even", handle) as even, Working(backend, "odd", handle):
            await operate(backend)
            await backend.publish("even", 1, id="even-1")
            await even.until(lambda: even.handled["even-1"] == 1, "the message of another key is handled")
        demand(even.dead.total() == 0, "a message of another key becomes a dead letter")


async def operate(backend: Backend, *, peeks: bool = True) -> None:
    """Call every operation once, with `peek` if wanted. Each returns, or raises a BackendError."""
    operations: Sequence[Callable[[], Awaitable[object]]] = (
        backend.status,
        lambda: list_dead_letters(backend),
        lambda: backend.dead_letters("odd", "g", limit=2),
        lambda: backend.entries(WORKERS),
        lambda: backend.get("other", "odd"),
        lambda: backend.put("other", "odd", b"2"),
        lambda: backend.take_tokens("odd", 100.0, 1),
        lambda: backend.trim({"odd": 60.0}),
        lambda: backend.check_health({("even", "g")}),
        lambda: backend.publish("odd", 2, id="odd-once", window=60.0),
        lambda: backend.replay("odd", "g", ["1", "2", "x"]),
        lambda: backend.purge("odd", "g", ["3"]),
        lambda: backend.drop("odd", "x"),
    )
    if peeks:
        operations = (*operations, lambda: backend.peek("odd", "g"), lambda: backend.peek("#", None))
    for operation in operations:
        try:
            async with asyncio.timeout(15):
                await operation()
        except BackendError:
            continue


async def _use_lost(backend: Backend) -> None:
    """Use a backend that may never work again; BackendError is an answer of each operation."""
    try:
        async with backend:
            await operate(backend)
            handle = await backend.subscribe("odd", "g")
            for delivery in await handle.fetch(10, 0.01):
                await handle.settle([(delivery, _outcome(delivery.message))])
            await handle.close()
    except BackendError:
        return


def _outcome(message: Message) -> Outcome:
    return ACKED if message.attempt % 2 else RELEASED
