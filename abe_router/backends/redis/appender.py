"""Appends messages. What callers append while one batch is under way goes in the next, in one call."""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left
from collections import deque
from collections.abc import Awaitable, Collection, Iterable, Iterator, Sequence
from copy import copy
from functools import partial
from itertools import chain
from typing import Any

from abe_router.backend.time_limit import PUBLISH_TIMEOUT, TimeLimit, publish_timeout
from abe_router.backends.redis.answers import UNREADABLE, unreadable
from abe_router.backends.redis.connection import Connection
from abe_router.backends.redis.discovery import Discovery
from abe_router.backends.redis.entry import pack_headers, packed, require_text
from abe_router.backends.redis.names import Names
from abe_router.backends.redis.notifier import Notifier
from abe_router.backends.redis.protocol import Arg, server_error
from abe_router.backends.redis.scripts import APPEND
from abe_router.errors import BackendError, BackendUnavailable, PayloadUnencodable, PublishTimeout
from abe_router.messages.message import Message, new_id
from abe_router.text import format_duration

#: Most messages and bytes of one batch. While it runs the server does nothing else, so it must be short.
BATCH, BATCH_BYTES = 500, 1024 * 1024
#: Most bytes of a part of one call. Larger ones take longer: both sides get fresh memory for each.
PART_BYTES = 128 * 1024
#: Most messages of several callers in one batch. It is half of what often waits, so that a second batch is
#: built while the server works on the first, and neither waits for the other.
GATHERED = 250
#: How long replicas may take to confirm a batch, in seconds.
_CONFIRMED_WITHIN = 1.0
#: Batches under way at a time.
_FLIGHTS = 2
#: A body of so many bytes is sent as it is. Lua hashes every byte of a text, so that cutting one out of a
#: packed text takes the server longer than another argument or command.
LARGE = 2048

#: A future with the positions of the duplicates, None for messages without windows.
_Done = asyncio.Future[Sequence[int] | None]
#: The messages of one append, or a part of them; their windows in milliseconds, None without any; and their
#: future.
_Call = tuple[Sequence[Message], Sequence[int] | None, _Done]


class Appender:
    """Appends to the streams, with or without remembered ids, in the order of the calls."""

    def __init__(
        self,
        connection: Connection,
        names: Names,
        discovery: Discovery,
        notifier: Notifier,
        *,
        confirming: Connection | None = None,
        replicas: int = 0,
        timeout: float = PUBLISH_TIMEOUT,
    ) -> None:
        self._connection, self._names = connection, names
        #: What messages are appended over: a connection of its own if so many replicas confirm each batch.
        self._appending, self._replicas = confirming or connection, replicas
        self._discovery, self._notifier = discovery, notifier
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Call] = deque()
        #: The batches that were sent and are not answered.
        self._sent: dict[int, list[_Call]] = {}
        self._timeout = timeout
        self._limit = TimeLimit(
            timeout, self._pending, self._expire, busy=lambda: bool(self._sent) or self._scheduled
        )
        self._scheduled = False
        self._opening: asyncio.Task[None] | None = None

    def append(self, messages: Sequence[Message]) -> Awaitable[None]:
        """Append in order.

        When it raises, the first few messages, or all, may have been appended. None was appended when it
        raises PayloadUnencodable.
        """
        # Most of many callers have one message, and a coroutine more would slow them down.
        if len(messages) != 1:
            return self._append_all(messages)
        done: asyncio.Future[Any] = self._loop.create_future()
        message = messages[0]
        if message.headers or not message.id.isascii():
            try:
                require_text(messages)
            except PayloadUnencodable as error:
                done.set_exception(error)
                return done
        self._queue.append((messages, None, done))
        if not self._scheduled:
            self._schedule()
        return done

    async def append_until(self, windowed: Sequence[tuple[Message, float]], until: float) -> list[Message]:
        """Append each message, with its window in seconds, unless its id is known; return the duplicates.

        Errors mean the same as those of `append`. It ends at `until`, by the clock of the event loop.
        """
        messages = [message for message, _ in windowed]
        windows = [math.ceil(window * 1000) for _, window in windowed]
        found = await self._in_parts(messages, windows if any(windows) else None, until)
        return [messages[position] for position in found]

    def prepare(self, keys: Iterable[str]) -> list[str]:
        """Record that these keys get messages, and return their streams."""
        self._discovery.record(keys)
        return [self._names.stream(key) for key in keys]

    def notify(self, streams: Iterable[str]) -> None:
        """Wake the waiters of this process, whose reads then go out together with the append just sent."""
        self._notifier.notify(streams)
        self._appending.flush_early()

    async def _append_all(self, messages: Sequence[Message]) -> None:
        await self._in_parts(messages, None, self._loop.time() + self._timeout)

    async def _in_parts(
        self, messages: Sequence[Message], windows: Sequence[int] | None, until: float
    ) -> list[int]:
        require_text(messages)
        duplicates: list[int] = []
        # Parts go one after the other, so no message is kept before an earlier one.
        for first, last in _parts(messages):
            part = windows and windows[first:last]
            done = self._enqueue(messages[first:last], part)
            self._limit.set(done, until)
            try:
                found = await done
            except PublishTimeout as error:
                raise publish_timeout("Redis", sent=error.sent or first > 0) from None
            duplicates += [first + position for position in found or ()]
        return duplicates

    def _enqueue(self, messages: Sequence[Message], windows: Sequence[int] | None) -> _Done:
        done: _Done = self._loop.create_future()
        self._queue.append((messages, windows, done))
        if not self._scheduled:
            self._schedule()
        return done

    def _schedule(self) -> None:
        """Send a batch at the end of this turn of the event loop, with all that comes until then."""
        if self._queue and len(self._sent) < _FLIGHTS and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        """Send a batch, once there is a connection."""
        self._limit.watch()
        if self._connection.up and self._appending.up:
            self._send_batch()
        else:
            self._opening = self._loop.create_task(self._open())
            self._opening.add_done_callback(self._opened)

    async def _open(self) -> None:
        await self._connection.open()
        await self._appending.open()

    def _opened(self, opening: asyncio.Task[None]) -> None:
        """Send what was queued meanwhile, or fail all of it."""
        if opening.cancelled() or not (error := opening.exception()):
            self._send_batch()
            return
        self._scheduled = False
        calls = list(self._queue)
        self._queue.clear()
        _fail(calls, error)

    def _send_batch(self) -> None:
        """Send a batch of what is queued."""
        self._scheduled = False
        calls: list[_Call] = []
        try:
            if self._gather(calls) and not self._replicas:
                self._send_each(calls)
            elif calls:
                self._send(calls, *_pack(calls))
        except Exception as error:  # noqa: BLE001  the callers would wait for ever
            _fail(calls, _as_backend_error(error))
        self._schedule()

    def _gather(self, calls: list[_Call]) -> bool:
        """Take from the queue the calls that fit in one batch; return whether each has one large message."""
        queue, count, size, are_large = self._queue, 0, 0, False
        while queue and count < GATHERED and size < BATCH_BYTES:
            call = queue.popleft()
            messages, windows, done = call
            if done.done():  # its caller was cancelled
                continue
            calls.append(call)
            more = len(messages)
            length = len(messages[0].body) if more == 1 else sum([len(each.body) for each in messages])
            is_large = length >= LARGE and more == 1 and windows is None
            if len(calls) == 1:
                are_large = is_large
            elif is_large is not are_large or count + more > GATHERED:
                queue.appendleft(calls.pop())
                break
            count += more
            size += length
        return are_large

    def _send(self, calls: list[_Call], keys: Iterable[str], args: Sequence[Arg], windowed: bool) -> None:
        streams = self.prepare(keys)
        names = [*streams, *map(self._names.ids, keys)] if windowed else streams
        reply = self._appending.run(APPEND, names, args)
        self._sent[id(calls)] = calls
        if self._replicas:
            reply.add_done_callback(lambda reply: self._confirm(calls, reply))
        else:
            reply.add_done_callback(lambda reply: self._landed(calls, reply))
        self.notify(streams)

    def _send_each(self, calls: list[_Call]) -> None:
        """Send each message in a command of its own: the server takes a third of the time of a script."""
        keys = {messages[0].key: None for messages, _, _ in calls}
        streams = dict(zip(keys, self.prepare(keys), strict=True))
        sent = [(done, self._add(streams[messages[0].key], messages[0])) for messages, _, done in calls]
        self._sent[id(calls)] = calls
        for done, reply in sent:
            reply.add_done_callback(partial(self._added, done))
        sent[-1][-1].add_done_callback(partial(self._all_added, calls))
        self.notify(streams.values())

    def _add(self, stream: str, message: Message) -> asyncio.Future[Any]:
        headers: Sequence[Arg] = ("headers", pack_headers(message.headers)) if message.headers else ()
        fields = ("data", message.body, "id", message.id or new_id(), "at", message.published_at, *headers)
        return self._connection.send("XADD", stream, "*", *fields)

    def _added(self, done: _Done, reply: asyncio.Future[Any]) -> None:
        if done.done():
            return
        if error := reply.exception():
            done.set_exception(error)
        elif isinstance(reply.result(), bytes):
            done.set_result(None)
        else:
            self._connection.reset("an answer cannot be read")
            done.set_exception(unreadable(TypeError(f"{type(reply.result()).__name__} is no id")))

    def _all_added(self, calls: list[_Call], _: asyncio.Future[Any]) -> None:
        del self._sent[id(calls)]
        self._schedule()

    def _pending(self) -> list[_Done]:
        """Return what is queued or sent, and not done."""
        return [call[2] for call in chain(*self._sent.values(), self._queue) if not call[2].done()]

    def _expire(self, late: Collection[_Done]) -> None:
        """Fail what is late. What is still queued then is never sent."""
        queued = {call[2] for call in self._queue}
        for done in late:
            done.set_exception(publish_timeout("Redis", sent=done not in queued))
        left = [call for call in self._queue if not call[2].done()]
        self._queue.clear()
        self._queue.extend(left)

    def _confirm(self, calls: list[_Call], reply: asyncio.Future[Any]) -> None:
        """Wait until enough replicas have a batch that was appended; otherwise its outcome is unknown."""
        if reply.exception():
            self._landed(calls, reply)
            return
        try:
            confirmed = self._appending.confirm(self._replicas, _CONFIRMED_WITHIN)
        except BackendUnavailable as error:
            self._confirmed(calls, reply, 0, str(error))
            return
        confirmed.add_done_callback(
            lambda done: (
                self._confirmed(calls, reply, 0, str(done.exception()))
                if done.exception()
                else self._confirmed(calls, reply, done.result(), "")
            )
        )

    def _confirmed(self, calls: list[_Call], reply: asyncio.Future[Any], replicas: int, why: str) -> None:
        if replicas >= self._replicas:
            self._landed(calls, reply)
            return
        del self._sent[id(calls)]
        why = why or f"{replicas} have it after {format_duration(_CONFIRMED_WITHIN)}"
        _fail(calls, BackendUnavailable(f"fewer than {self._replicas} replicas confirmed the append: {why}"))
        self._schedule()

    def _landed(self, calls: list[_Call], reply: asyncio.Future[Any]) -> None:
        del self._sent[id(calls)]
        try:
            if error := reply.exception():
                _fail(calls, error)
            else:
                count, *rest = reply.result()
                if rest and rest[0]:
                    calls = self._stop(calls, count, rest[0])
                if rest and rest[1]:
                    _report_duplicates(calls, rest[1])
                else:
                    for call in calls:
                        if not call[2].done():
                            call[2].set_result(None)
        except UNREADABLE as error:  # the callers would wait for ever
            self._appending.reset("an answer cannot be read")
            _fail(calls, unreadable(error))
        self._schedule()

    def _stop(self, calls: list[_Call], count: int, why: bytes) -> list[_Call]:
        """Fail the call that stopped a batch after so many messages; return the calls that were done by then.

        The calls behind it were not begun, so they go again.
        """
        for position, (messages, _, _) in enumerate(calls):
            count -= len(messages)
            if count < 0:
                _fail([calls[position]], server_error(why.decode("utf-8", "replace")))
                self._queue.extendleft(reversed(calls[position + 1 :]))
                return calls[:position]
        return calls


def _pack(calls: Iterable[_Call]) -> tuple[Iterable[str], Sequence[Arg], bool]:
    """Return the keys and the arguments of the script, and whether some message has a window."""
    keys: dict[str, int] = {}
    items: list[str | float] = []
    small: list[bytes] = []
    large: list[bytes] = []
    current, window, windowed = "", 0, False
    for messages, windows, _ in calls:
        if windows:
            windowed = True
        elif window:
            window = 0
            items += ("", 0, 0)
        position = 0
        for message in messages:
            if windows:
                if windows[position] != window:
                    window = windows[position]
                    items += ("", 0, window)
                position += 1
            if message.key != current or message.headers:
                current = message.key
                headers = pack_headers(message.headers).decode()
                items += ("", keys.setdefault(current, len(keys) + 1), headers)
            body = message.body
            size = len(body)
            if size < LARGE:
                small.append(body)
            else:
                large.append(body)
                size = -len(large)
            items += (message.id or new_id(), size, message.published_at)
    return keys, (packed(items), b"".join(small), *large), windowed


def _report_duplicates(calls: Iterable[_Call], duplicates: Sequence[int]) -> None:
    """Pass to each call which of its messages are duplicates."""
    first = 0
    for messages, windows, done in calls:
        if not done.done():
            done.set_result(_among(duplicates, first, len(messages)) if windows else None)
        first += len(messages)


def _among(duplicates: Sequence[int], first: int, count: int) -> Sequence[int]:
    """Return which of so many messages, beginning at the first, are duplicates."""
    found = duplicates[bisect_left(duplicates, first) : bisect_left(duplicates, first + count)]
    return [position - first for position in found]


def _as_backend_error(error: Exception) -> BackendError:
    """Return the error for the callers of a batch that failed, which may be an unexpected one."""
    return error if isinstance(error, BackendError) else BackendError(f"cannot be sent to Redis: {error!r}")


def _parts(messages: Sequence[Message]) -> Iterator[tuple[int, int]]:
    """Yield the bounds of parts of the messages that each fit in a batch."""
    first = size = 0
    for position, message in enumerate(messages):
        if position - first >= BATCH or (size > 0 and size + len(message.body) > PART_BYTES):
            yield first, position
            first, size = position, 0
        size += len(message.body)
    if first < len(messages):
        yield first, len(messages)


def _fail(calls: Iterable[_Call], error: BaseException) -> None:
    """Fail each call with an error of its own: one that is raised twice would mix its tracebacks."""
    for _, _, done in calls:
        if not done.done():
            done.set_exception(copy(error))
