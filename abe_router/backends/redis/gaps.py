"""Finds what other programs did to groups: messages that they deleted or skipped, and leases that they ended.

Nothing in a read shows that a group was never given a message. So a look at all groups, every few seconds,
compares how many entries each group was given with how many there were. Deletions between two looks may
escape it once the group has read on. What was found is logged, and what the server does not show is recorded
for `doctor`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice

import msgspec

from abe_router.backends.redis.connection import Connection
from abe_router.backends.redis.entry import read_count
from abe_router.backends.redis.names import Names
from abe_router.backends.redis.scripts import GAPS
from abe_router.errors import BackendError, BackendUnavailable

_log = logging.getLogger(__name__)

#: Time between two looks, in seconds.
INTERVAL = 2.0
#: Streams in one call, which must be short, because the server does nothing else meanwhile.
_CHUNK = 100

#: For how long, in seconds, changes are recorded after the last one.
_KEPT = 7 * 86_400

#: A stream and a group on it.
Name = tuple[str, str]


class Change(msgspec.Struct, frozen=True, array_like=True):
    """What another program did to a group of a stream.

    It set the position from one id `to` another one, or, with empty ids, ended leases that a worker had.
    """

    stream: str
    group: str
    before: str = ""
    to: str = ""


class GroupChanges:
    """The changes that workers found in the last days, on the server."""

    def __init__(self, connection: Connection, names: Names) -> None:
        self._connection, self._name = connection, names.changes

    def record(self, change: Change, messages: int) -> None:
        """Record a change, and how many messages it cost; nothing waits for the answer."""
        with suppress(BackendUnavailable):
            self._connection.send("HINCRBY", self._name, msgspec.json.encode(change), messages)
            self._connection.send("EXPIRE", self._name, _KEPT)

    async def read(self) -> Iterator[tuple[Change, int]]:
        """Return the changes, each with the number of messages; what cannot be read is left out."""
        fields = await self._connection.send("HGETALL", self._name)
        return _readable(zip(fields[::2], fields[1::2], strict=True))


def _readable(fields: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[Change, int]]:
    for field, count in fields:
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            yield msgspec.json.decode(field, type=Change), read_count(count) or 0


class GapWatch:
    """Looks at the groups that `names` returns, logs what they lost, and records it in `changes`."""

    def __init__(
        self, connection: Connection, names: Callable[[], Iterable[Name]], changes: GroupChanges
    ) -> None:
        self._connection, self._names, self._changes = connection, names, changes
        self._seen: dict[Name, tuple[int, bytes, int]] = {}

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            with suppress(BackendError):  # the next fetch raises it
                await self.look()
            await asyncio.sleep(INTERVAL)

    async def look(self) -> None:
        """Look once."""
        left = iter(dict.fromkeys(self._names()))
        seen: dict[Name, tuple[int, bytes, int]] = {}
        while chunk := tuple(islice(left, _CHUNK)):
            args = [group for _, group in chunk]
            answers = await self._connection.run(GAPS, [stream for stream, _ in chunk], args)
            for name, (missing, given, read) in zip(chunk, answers, strict=True):
                seen[name] = missing, given, read
                self._compare(name, missing, given, read)
        self._seen = seen

    def _compare(self, name: Name, missing: int, given: bytes, read: int) -> None:
        before, given_before, read_before = self._seen.get(name, (0, b"", -1))
        lost = missing - before if given == given_before else missing
        if lost > 0:
            _log.warning(
                "messages of stream `%s` were deleted before group `%s` was given them: %d", *name, lost
            )
        # A group that was lost has no position, and begins at 0-0 when it is created again.
        if read == -1 and read_before >= 0 and given not in (b"", b"0-0"):
            _log.warning(
                "another program set the position of group `%s` of stream `%s`, from %s to %s, with XGROUP "
                "SETID: messages in between are not delivered, or come again",
                name[1],
                name[0],
                given_before.decode(),
                given.decode(),
            )
            self._changes.record(Change(*name, given_before.decode(), given.decode()), 0)
