"""The SQLite provider."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, Self, TypeVar
from urllib.parse import parse_qsl, unquote

from abe_router.backend import (
    Backend,
    DeadLetter,
    Features,
    HealthResult,
    SubscriptionName,
    SubscriptionStatus,
)
from abe_router.backend.rate import TokenGrant
from abe_router.backends.sqlite import announcement, ids, letter, log, rates, retention, trim
from abe_router.backends.sqlite import group as groups
from abe_router.backends.sqlite.database import Database
from abe_router.backends.sqlite.examination import Examination
from abe_router.backends.sqlite.exclusive import ExclusiveSQLiteSubscription
from abe_router.backends.sqlite.file import File
from abe_router.backends.sqlite.group import Group
from abe_router.backends.sqlite.subscription import SQLiteSubscription
from abe_router.backends.sqlite.worker import Worker
from abe_router.messages.message import Message

T = TypeVar("T")
#: Where the file is unless the environment says otherwise, relative to the current folder.
DEFAULT_PATH = ".abe-router.db"
#: The most messages that `append` adds in one transaction, so that a large call holds nobody up.
_CHUNK = 1000
#: The most pages of the log that `trim` takes in one call.
_PAGES = 10


class SQLiteBackend(Backend):
    """Keeps the messages in one SQLite file that any number of processes of this machine may share.

    What was accepted survives a crash of the process, and with `synchronous` of `full` a loss of power;
    `normal` is faster and may lose the last commits when power is lost, nothing when a process crashes.
    """

    features: ClassVar[Features] = Features()

    def __init__(self, path: Path, *, prefix: str = "", synchronous: str = "full") -> None:
        self._path = path.absolute()
        self._prefix = prefix
        self._synchronous = synchronous
        self._worker: Worker | None = None
        self._handles: set[SQLiteSubscription] = set()
        self._trimmed = trim.START
        self.url = f"sqlite:///{self._path}"

    @classmethod
    def from_url(cls, url: str, *, prefix: str = "") -> Self:
        """Make a backend from `sqlite:///relative.db` or `sqlite:////absolute.db`.

        The one option is `?synchronous=full` or `normal`. Raise ValueError when the URL is malformed.
        """
        place, _, query = url.removeprefix("sqlite://").partition("?")
        path = unquote(place.removeprefix("/"), errors="surrogateescape")
        if not place.startswith("/") or not path or "\0" in path:
            raise ValueError("write `sqlite:///relative.db` or `sqlite:////absolute.db`")
        if path == ":memory:":
            raise ValueError("a SQLite file is needed; for a backend in memory, write `memory://`")
        options = dict(parse_qsl(query, keep_blank_values=True))
        synchronous = options.pop("synchronous", "full").lower()
        if synchronous not in ("full", "normal"):
            raise ValueError(f"`synchronous` is `full` or `normal`, not `{synchronous}`")
        if options:
            raise ValueError(f"unknown option `{next(iter(options))}`; there is only `synchronous`")
        return cls(Path(path), prefix=prefix, synchronous=synchronous)

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Make a backend on the file that `SQLITE_PATH` names, by default `.abe-router.db`."""
        return cls(Path(env.get("SQLITE_PATH") or DEFAULT_PATH))

    async def open(self) -> None:
        """Open the file, making it if need be; its folder must exist."""
        first = self._worker is None
        try:
            await self._read(lambda _: None)
        except BaseException:  # a cancellation too, or the thread would stay
            if first:
                await self.close()
            raise

    async def close(self) -> None:
        """Close the file and all subscriptions; waiting fetches return at once."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.hurry()
        try:
            await asyncio.gather(*(handle.close() for handle in tuple(self._handles)))
        finally:
            if worker is not None and worker.is_running:
                await worker.stop()

    async def append(self, messages: Sequence[Message]) -> None:
        """Add the messages; raise PayloadUnencodable when an id or header is not Unicode text."""
        worker, rows = self._started(), [log.encode(message) for message in messages]
        for begin in range(0, len(rows), _CHUNK):
            await worker.append(rows[begin : begin + _CHUNK])

    async def append_once(self, windowed: Sequence[tuple[Message, float]]) -> Sequence[Message]:
        """Add the messages whose id is not remembered, each chunk of them in the transaction that remembers.

        Raise PayloadUnencodable when an id or header is not Unicode text.
        """
        worker = self._started()
        rows = [ids.Windowed(log.encode(message), window) for message, window in windowed]
        passed_over: list[Message] = []
        for begin in range(0, len(rows), _CHUNK):
            places = await worker.append_once(rows[begin : begin + _CHUNK])
            passed_over += [windowed[begin + place][0] for place in places]
        return passed_over

    async def subscribe(
        self, pattern: str, group: str, *, start: float = 0.0, lease: float = 30.0
    ) -> SQLiteSubscription:
        """Return a handle; a new subscription begins with the first message published at `start` or later."""
        name = await self._begun(Group(pattern, group, start))
        return SQLiteSubscription(self._started(), name, lease, self._handles)

    async def subscribe_exclusive(
        self, pattern: str, group: str, *, start: float = 0.0, lease: float = 30.0
    ) -> ExclusiveSQLiteSubscription:
        """Return a handle that waits for the place."""
        name = await self._begun(Group(pattern, group, start))
        return ExclusiveSQLiteSubscription(self._started(), name, lease, self._handles)

    async def status(self) -> Sequence[SubscriptionStatus]:
        """Return the counts of every subscription."""
        return await self._read(groups.status)

    async def drop(self, pattern: str, group: str) -> bool:
        """Forget a subscription."""
        return await self._write(lambda database: groups.drop(database, Group(pattern, group)))

    async def trim(self, retain: Mapping[str, float]) -> int:
        """Delete settled messages page by page, each in a transaction of its own, up to so many pages.

        The file does not shrink: its free pages take the next messages.
        """
        noted = await self._read(retention.read)
        if not retention.is_fresh(noted, retain):
            await self._write(lambda database: retention.note(database, retain))
        trimmer = trim.Trimmer(retention.longest(noted, retain), self._trimmed)
        for _ in range(_PAGES):
            if await self._read(trimmer.look):
                await self._write(trimmer.delete)
            elif trimmer.done:
                break
        self._trimmed = trimmer.place
        if await self._read(ids.is_any_due):
            await self._write(partial(ids.forget, limit=_CHUNK))
        return trimmer.deleted

    async def dead_letters(
        self, pattern: str, group: str, *, limit: int = 100, after: str = ""
    ) -> Sequence[DeadLetter]:
        """Return dead letters in the order in which they died."""
        return await self._read(lambda database: letter.read(database, Group(pattern, group), limit, after))

    async def replay(self, pattern: str, group: str, ids: Sequence[str]) -> int:
        """Hand dead letters out anew."""
        return await self._write(lambda database: letter.replay(database, Group(pattern, group), ids))

    async def purge(self, pattern: str, group: str, ids: Sequence[str]) -> int:
        """Delete dead letters."""
        return await self._write(lambda database: letter.purge(database, Group(pattern, group), ids))

    async def announce(self, worker: str, state: bytes, ttl: float) -> None:
        """Keep the word of a worker."""
        await self._write(lambda database: announcement.put(database, worker, state, ttl))

    async def announcements(self) -> Mapping[str, bytes]:
        """Return the words of the living workers."""
        return await self._read(announcement.read)

    async def take_tokens(self, name: str, rate: float, wanted: int) -> TokenGrant:
        """Grant tokens by the clock of this machine."""
        return await self._write(lambda database: rates.take(database, name, rate, wanted))

    async def check_health(
        self, served: Collection[SubscriptionName] | None = None
    ) -> Sequence[HealthResult]:
        """Look at the file, its disk and the SQLite that is used; a file that is not there is not made."""
        examination = Examination(self._path, self._prefix, self._synchronous, served)
        return await asyncio.to_thread(examination.run)

    async def _begun(self, group: Group) -> Group:
        """Make the subscription if it does not exist; return its name."""
        if await self._read(lambda database: groups.find(database, group)) is None:
            await self._write(lambda database: groups.begin(database, group))
        return group

    async def _read(self, run: Callable[[Database], T]) -> T:
        return await self._started().submit(run, reads=True)

    async def _write(self, run: Callable[[Database], T]) -> T:
        return await self._started().submit(run)

    def _started(self) -> Worker:
        if self._worker is None:
            self._worker = Worker(Database(File(self._path, self._synchronous), self._prefix))
        return self._worker
