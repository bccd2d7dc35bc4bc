"""The SQLite provider."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, Self, TypeVar
from urllib.parse import parse_qsl, quote, unquote

from abe_router.backend import (
    Backend,
    DeadLetter,
    Entry,
    Features,
    HealthResult,
    Peeked,
    SubscriptionName,
    SubscriptionStatus,
    read_position,
)
from abe_router.backend.rate import TokenGrant
from abe_router.backend.substitute import refuse_in_test
from abe_router.backend.time_limit import PUBLISH_TIMEOUT, publish_timeout, read_timeout
from abe_router.backends.sqlite import dead_letters, dedupe, key_value, log, peek, registry, retention
from abe_router.backends.sqlite.database import Database
from abe_router.backends.sqlite.exclusive import ExclusiveSQLiteSubscription
from abe_router.backends.sqlite.file import File
from abe_router.backends.sqlite.health import FileHealth
from abe_router.backends.sqlite.registry import SubscriptionSpec
from abe_router.backends.sqlite.subscription import SQLiteSubscription
from abe_router.backends.sqlite.thread import DatabaseThread
from abe_router.errors import PublishTimeout
from abe_router.messages.message import Message

T = TypeVar("T")
#: The file of `from_env` by default, relative to the current folder.
DEFAULT_PATH = ".abe-router.db"
#: The most messages that `append` adds in one transaction, so that a large call does not block other writers.
_CHUNK = 1000
#: The most pages of the log that one call of `trim` deletes from.
_PAGES = 10


class SQLiteBackend(Backend):
    """Keeps the messages in one SQLite file that any number of processes of this machine may share.

    Accepted messages survive a crash of the process and, with `synchronous` of `full`, a loss of power.
    `normal` is faster: a loss of power may lose the last commits, a crash of a process loses none. Consumers
    may get a message before it is on the disk, and its publisher waits for the disk.
    """

    features: ClassVar[Features] = Features()

    def __init__(
        self,
        path: Path,
        *,
        prefix: str = "",
        synchronous: str = "full",
        timeout: float = PUBLISH_TIMEOUT,
    ) -> None:
        self._path = path.absolute()
        self._prefix = prefix
        self._synchronous, self.publish_timeout = synchronous, timeout
        self._thread: DatabaseThread | None = None
        self._handles: set[SQLiteSubscription] = set()
        #: Where the next `trim` goes on.
        self._trim_position = retention.START
        self.url = f"sqlite:///{self._path}"

    @classmethod
    def from_url(cls, url: str, *, prefix: str = "") -> Self:
        """Make a backend from `sqlite:///relative.db` or `sqlite:////absolute.db`.

        The options are `synchronous`, `full` or `normal`, and `timeout`. Raise ValueError when the URL is
        malformed.
        """
        location, _, query = url.removeprefix("sqlite://").partition("?")
        path = unquote(location.removeprefix("/"), errors="surrogateescape")
        if not location.startswith("/") or not path or "\0" in path:
            raise ValueError("write `sqlite:///relative.db` or `sqlite:////absolute.db`")
        if path == ":memory:":
            raise ValueError("a SQLite file is needed; for a backend in memory, write `memory://`")
        options = dict(parse_qsl(query, keep_blank_values=True))
        synchronous = options.pop("synchronous", "full").lower()
        if synchronous not in ("full", "normal"):
            raise ValueError(f"`synchronous` is `full` or `normal`, not `{synchronous}`")
        timeout = read_timeout(options.pop("timeout", None))
        if options:
            raise ValueError(f"unknown option `{next(iter(options))}`; there are `synchronous` and `timeout`")
        return cls(Path(path), prefix=prefix, synchronous=synchronous, timeout=timeout)

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Make a backend on the file that `SQLITE_PATH` names, by default `.abe-router.db`."""
        return cls(Path(env.get("SQLITE_PATH") or DEFAULT_PATH))

    @classmethod
    def url_from_env(cls, env: Mapping[str, str]) -> str:
        """Return the URL of the file that `SQLITE_PATH` names, by default `.abe-router.db`."""
        return f"sqlite:///{quote(env.get('SQLITE_PATH') or DEFAULT_PATH)}"

    async def open(self) -> None:
        """Open the file; create it if it does not exist. Its folder must exist."""
        is_first = self._thread is None
        try:
            await self._read(lambda _: None)
        except BaseException:  # a cancellation too, or the thread would stay
            if is_first:
                await self.close()
            raise

    async def close(self) -> None:
        """Close the file and all subscriptions; a waiting fetch raises SubscriptionClosed at once."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.limit_lock_wait()
        try:
            await asyncio.gather(*(handle.close() for handle in tuple(self._handles)))
        finally:
            if thread is not None and thread.is_running:
                await thread.stop()

    async def append(self, messages: Sequence[Message]) -> None:
        """Add the messages; raise PayloadUnencodable when an id or header is not Unicode text."""
        if len(messages) <= _CHUNK:
            await self._started().append([log.encode(message) for message in messages])
            return
        await self.append_within([(message, 0.0) for message in messages], self.publish_timeout)

    async def append_once(self, windowed: Sequence[tuple[Message, float]]) -> Sequence[Message]:
        """Add the messages whose id is not remembered; each chunk is one transaction.

        Raise PayloadUnencodable when an id or header is not Unicode text.
        """
        return await self.append_within(windowed, self.publish_timeout)

    async def append_within(
        self, windowed: Sequence[tuple[Message, float]], seconds: float
    ) -> Sequence[Message]:
        until = asyncio.get_running_loop().time() + seconds
        thread = self._started()
        rows = [dedupe.WindowedMessage(log.encode(message), window) for message, window in windowed]
        duplicates: list[Message] = []
        for begin in range(0, len(rows), _CHUNK):
            try:
                indices = await thread.append_once(rows[begin : begin + _CHUNK], until)
            except PublishTimeout as error:
                raise publish_timeout(f"`{self._path}`", sent=error.sent or begin > 0) from None
            duplicates += [windowed[begin + index][0] for index in indices]
        return duplicates

    async def subscribe(
        self, pattern: str, group: str, *, start: float = 0.0, lease: float = 30.0
    ) -> SQLiteSubscription:
        """Return a handle; a new subscription begins with the first message published at `start` or later."""
        spec = await self._created(SubscriptionSpec(pattern, group, start))
        return SQLiteSubscription(self._started(), spec, lease, self._handles)

    async def subscribe_exclusive(
        self, pattern: str, group: str, *, start: float = 0.0, lease: float = 30.0
    ) -> ExclusiveSQLiteSubscription:
        spec = await self._created(SubscriptionSpec(pattern, group, start))
        return ExclusiveSQLiteSubscription(self._started(), spec, lease, self._handles)

    async def status(self) -> Sequence[SubscriptionStatus]:
        return await self._read(registry.status)

    async def drop(self, pattern: str, group: str) -> bool:
        return await self._write(lambda database: registry.drop(database, SubscriptionSpec(pattern, group)))

    async def trim(self, retain: Mapping[str, float]) -> int:
        """Delete settled messages page by page, each page in a transaction of its own.

        The file does not shrink: its free pages take the next messages.
        """
        stored = await self._read(retention.stored)
        if not retention.is_fresh(stored, retain):
            await self._write(lambda database: retention.store(database, retain))
        trimmer = retention.Trimmer(retention.longest(stored, retain), self._trim_position)
        for _ in range(_PAGES):
            if await self._read(trimmer.find):
                await self._write(trimmer.delete)
            elif trimmer.done:
                break
        self._trim_position = trimmer.position
        for table in (dedupe, key_value):
            if await self._read(table.is_any_expired):
                await self._write(partial(table.delete_expired, limit=_CHUNK))
        return trimmer.deleted

    async def dead_letters(
        self, pattern: str, group: str, *, limit: int = 100, after: str = "", bodies: bool = True
    ) -> Sequence[DeadLetter]:
        spec, read = SubscriptionSpec(pattern, group), dead_letters.select if bodies else dead_letters.bare
        return await self._read(lambda database: read(database, spec, limit, after))

    async def replay(self, pattern: str, group: str, ids: Sequence[str]) -> int:
        spec = SubscriptionSpec(pattern, group)
        return await self._write(lambda database: dead_letters.replay(database, spec, ids))

    async def purge(self, pattern: str, group: str, ids: Sequence[str]) -> int:
        spec = SubscriptionSpec(pattern, group)
        return await self._write(lambda database: dead_letters.purge(database, spec, ids))

    async def peek(
        self, pattern: str, group: str | None, *, limit: int = 100, after: str = ""
    ) -> Sequence[Peeked]:
        """Look at messages in one read transaction."""
        seq = read_position(after)
        if group is None:
            return await self._read(lambda database: peek.retained(database, pattern, limit, seq))
        spec = SubscriptionSpec(pattern, group)
        return await self._read(lambda database: peek.unsettled(database, spec, limit, seq))

    async def peek_end(self, pattern: str, group: str | None) -> str:  # noqa: ARG002
        return str(await self._read(peek.last))

    async def put(
        self, bucket: str, name: str, value: bytes, *, expected: int | None = None, ttl: float | None = None
    ) -> int:
        return await self._write(lambda database: key_value.put(database, bucket, name, value, expected, ttl))

    async def get(self, bucket: str, name: str) -> Entry | None:
        return await self._read(lambda database: key_value.get(database, bucket, name))

    async def entries(self, bucket: str) -> Mapping[str, Entry]:
        return await self._read(lambda database: key_value.select(database, bucket))

    async def delete(self, bucket: str, name: str, *, expected: int | None = None) -> bool:
        return await self._write(lambda database: key_value.delete(database, bucket, name, expected))

    async def take_tokens(self, name: str, rate: float, wanted: int) -> TokenGrant:
        """Grant tokens by the clock of this machine."""
        return await self._write(lambda database: key_value.take_tokens(database, name, rate, wanted))

    async def check_health(
        self, served: Collection[SubscriptionName] | None = None
    ) -> Sequence[HealthResult]:
        """Check the file, its disk and the version of SQLite; a file that does not exist is not created."""
        health = FileHealth(self._path, self._prefix, self._synchronous, served)
        return await asyncio.to_thread(health.check)

    async def _created(self, spec: SubscriptionSpec) -> SubscriptionSpec:
        """Create the subscription if it does not exist; return its name."""
        if await self._read(lambda database: registry.find(database, spec)) is None:
            await self._write(lambda database: registry.find_or_create(database, spec))
        return spec

    async def _read(self, function: Callable[[Database], T]) -> T:
        return await self._started().run(function, reads=True)

    async def _write(self, function: Callable[[Database], T]) -> T:
        return await self._started().run(function)

    def _started(self) -> DatabaseThread:
        if self._thread is None:
            refuse_in_test(self.url)
            database = Database(File(self._path, self._synchronous), self._prefix)
            self._thread = DatabaseThread(database, timeout=self.publish_timeout)
        return self._thread
