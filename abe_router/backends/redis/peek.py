"""Looks at messages without reading them: no XREADGROUP, and nothing is written.

Messages come in the order of their entry ids, merged over all streams. A server hands out ids by its clock,
so an id of an earlier millisecond than now cannot come any more, in any stream. Entries of the current
millisecond can still be overtaken: another stream may get an entry with a smaller id. Therefore a cursor
has two parts:

- the *mark*, an entry id and a key: every entry up to it, in every stream, was looked at. It never reaches
  the current millisecond when there are several streams.
- for each stream that was looked at beyond the mark, its own last id.

So later messages always come behind the cursor, and none comes twice. It holds as long as the server's
clock is not set back.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from abe_router.backend import Peeked, PeekState
from abe_router.backends.redis.connection import Connection
from abe_router.backends.redis.entry import order, read_message
from abe_router.backends.redis.names import Names, group_name, position_before
from abe_router.backends.redis.protocol import ServerError
from abe_router.backends.redis.registry import Registry
from abe_router.backends.redis.scripts import ANSWER_BYTES, PEEK, RANGE
from abe_router.messages.message import Message

#: Most entries of one call, which must be short, because the server does nothing else meanwhile.
_CHUNK = 100
_BEGIN = "0-0"
#: It comes after all keys.
_LAST_KEY = "\x7f"


class _Cursor(msgspec.Struct, frozen=True, array_like=True):
    """A mark, and the last ids of the streams that were looked at beyond it."""

    id: str = _BEGIN
    key: str = ""
    beyond: dict[str, str] = msgspec.field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> _Cursor:
        """Read a cursor; raise ValueError when it is none."""
        if not text:
            return cls()
        try:
            cursor = msgspec.json.decode(text, type=cls)
            for entry_id in (cursor.id, *cursor.beyond.values()):
                order(entry_id.encode())
        except (msgspec.DecodeError, ValueError):
            raise ValueError("`after` is not a cursor of `peek`") from None
        return cursor

    def position(self, key: str) -> str:
        """Return the id after which a stream is to be looked at."""
        if own := self.beyond.get(key):
            return own
        # Entries with the same id lie in the order of their keys.
        return self.id if key <= self.key or self.id == _BEGIN else _before(self.id)

    def text(self) -> str:
        """Return it as a text, as `parse` reads it."""
        return msgspec.json.encode(self).decode()


class _Found(NamedTuple):
    """An entry that was looked at; `message` is None if it is none of the caller's."""

    id: str
    message: Message | None
    state: PeekState
    deliveries: int


class Peek:
    """Looks at the messages of the streams of a registry."""

    def __init__(self, connection: Connection, names: Names, registry: Registry) -> None:
        self._connection, self._names, self._registry = connection, names, registry

    async def peek(self, pattern: str, group: str | None, limit: int, after: str) -> Sequence[Peeked]:
        """Return up to `limit` messages after a cursor, oldest first; raise ValueError when it is none."""
        cursor = _Cursor.parse(after)
        begin = _BEGIN
        if group is not None:
            start = await self._registry.start(pattern, group)
            if start is None:
                return []
            begin = position_before(start)
        # The time is read before the keys, and the keys before their entries. So what is found with an id
        # before this millisecond is all that will ever exist there, in streams that are not known yet as
        # well.
        now = await _milliseconds(self._connection)
        keys = self._registry.matching(pattern, await self._registry.keys())
        if limit < 1 or not keys:
            return []
        name = None if group is None else group_name(pattern, group)
        chunk = min(_CHUNK, limit // len(keys) + 1)
        streams = [
            _Stream(self._connection, self._names, key, name, begin, cursor.position(key), chunk)
            for key in keys
        ]
        found: list[Peeked] = []
        async for key, entry in _merged(streams):
            cursor = _advanced(cursor, key, entry.id, None if len(keys) == 1 and pattern == key else now)
            if entry.message is not None:
                found.append(Peeked(cursor.text(), entry.message, entry.state, entry.deliveries))
                if len(found) == limit:
                    break
        return found


async def end_cursor(connection: Connection) -> str:
    """Return the cursor behind every entry of every stream that was added before this call."""
    began = now = await _milliseconds(connection)
    while now == began:  # another entry may come in the same millisecond
        now = await _milliseconds(connection)
    return _Cursor(f"{began}-{2**64 - 1}", _LAST_KEY).text()


async def _milliseconds(connection: Connection) -> int:
    """Return the time of the server."""
    seconds, micros = await connection.send("TIME")
    return int(seconds) * 1000 + int(micros) // 1000


class _Stream:
    """The entries of one stream, read ahead in chunks that grow."""

    def __init__(
        self,
        connection: Connection,
        names: Names,
        key: str,
        group: str | None,
        begin: str,
        position: str,
        chunk: int,
    ) -> None:
        self.key = key
        self._connection, self._names, self._group, self._begin = connection, names, group, begin
        self._position, self._chunk = position, chunk
        # The first chunks of all streams are asked for at once, the later ones when they are needed.
        self._reply: asyncio.Future[Any] | None = self._ask()
        self._ended = False

    async def read(self) -> Sequence[_Found]:
        """Return the next entries, none at the end of the stream."""
        if self._ended:
            return ()
        reply, self._reply = self._reply or self._ask(), None
        try:
            rows, full = await reply
        except ServerError as error:
            if error.code != "WRONGTYPE":
                raise
            rows, full = [], 0  # it holds no messages, and hides none of the others
        self._ended = len(rows) < self._chunk and not full
        self._chunk = min(_CHUNK, self._chunk * 2)
        found = [self._found(row) for row in rows]
        if found:
            self._position = found[-1].id
        return found

    def _ask(self) -> asyncio.Future[Any]:
        stream = self._names.stream(self.key)
        if self._group is None:
            return self._connection.run(RANGE, (stream,), (f"({self._position}", self._chunk, ANSWER_BYTES))
        keys = (stream, self._names.delayed(self.key, self._group))
        args = (self._group, self._begin, self._position, self._chunk, ANSWER_BYTES)
        return self._connection.run(PEEK, keys, args)

    def _found(self, row: Sequence[Any]) -> _Found:
        entry_id, fields, *rest = row
        message, only = read_message(entry_id, fields, self.key)
        name = entry_id.decode()
        if self._group is None:
            # A replay is a second copy for one group. The message itself was published once.
            return _Found(name, message if only is None else None, "retained", 0)
        if not fields or only not in (None, self._group):
            return _Found(name, None, "ready", 0)
        consumer, deliveries, delayed = rest
        ready = consumer in (b"", b":released")
        state: PeekState = "ready" if ready else "delayed" if delayed else "in_flight"
        return _Found(name, message, state, deliveries)


async def _merged(streams: Sequence[_Stream]) -> AsyncIterator[tuple[str, _Found]]:
    """Yield the entries of all streams in the order of id and key."""
    heap: list[tuple[tuple[int, int], str, int, Sequence[_Found], _Stream]] = []

    async def push(stream: _Stream) -> None:
        if found := await stream.read():
            heapq.heappush(heap, (order(found[0].id.encode()), stream.key, 0, found, stream))

    for stream in streams:
        await push(stream)
    while heap:
        _, key, at, found, stream = heapq.heappop(heap)
        yield key, found[at]
        if at + 1 < len(found):
            following = order(found[at + 1].id.encode())
            heapq.heappush(heap, (following, key, at + 1, found, stream))
        else:
            await push(stream)


def _advanced(cursor: _Cursor, key: str, entry_id: str, now: int | None) -> _Cursor:
    """Return the cursor behind an entry; `now` is the current millisecond, None with one stream alone."""
    if now is None:
        return _Cursor(entry_id, key)
    position = order(entry_id.encode())
    if position[0] < now:
        return _Cursor(entry_id, key, _still_beyond(cursor.beyond, position))
    # The mark goes to the end of the last millisecond, which is complete.
    end = f"{now - 1}-{2**64 - 1}"
    if order(cursor.id.encode()) >= order(end.encode()):
        return _Cursor(cursor.id, cursor.key, {**cursor.beyond, key: entry_id})
    beyond = _still_beyond(cursor.beyond, order(end.encode()))
    return _Cursor(end, _LAST_KEY, {**beyond, key: entry_id})


def _still_beyond(beyond: Mapping[str, str], mark: tuple[int, int]) -> dict[str, str]:
    return {key: entry_id for key, entry_id in beyond.items() if order(entry_id.encode()) > mark}


def _before(entry_id: str) -> str:
    """Return the id right before one."""
    millis, number = order(entry_id.encode())
    return f"{millis}-{number - 1}" if number else f"{max(0, millis - 1)}-{2**64 - 1}"
