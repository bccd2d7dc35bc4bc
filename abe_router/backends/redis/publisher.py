"""Appends messages: what comes in while one batch is under way goes in the next, in one call."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from copy import copy
from typing import Any

import msgspec

from abe_router.backends.redis.entry import pack_headers
from abe_router.backends.redis.fault import server_error
from abe_router.backends.redis.line import Line
from abe_router.backends.redis.names import Names
from abe_router.backends.redis.registry import Registry
from abe_router.backends.redis.scripts import APPEND
from abe_router.backends.redis.wire import Arg
from abe_router.errors import BackendError, PayloadUnencodable
from abe_router.messages.message import Message, new_id

#: Most messages and bytes of one batch. While it runs the server does nothing else, so it must be short.
BATCH, BATCH_BYTES = 500, 1024 * 1024
#: Most messages of several callers that go together. With fewer than there often are, a second batch is put
#: together while the server works on the first, and neither waits for the other.
GATHERED = 250
#: Batches under way at a time: the server works on one while the next is put together.
_FLIGHTS = 2
#: How long, in seconds, a key counts as noted. Noting it anew heals a registry that was lost.
_NOTED = 1.0


_as_text = msgspec.json.Encoder().encode  # exact, as `repr` is, in an eighth of its time

#: The messages of one `append`, or a part of them, and who waits for them.
_Call = tuple[Sequence[Message], asyncio.Future[None]]


class Publisher:
    """Appends to the streams.

    `sent` is called with the streams of each batch as soon as it is sent, `noted` with keys that may be new.
    """

    def __init__(
        self,
        line: Line,
        names: Names,
        registry: Registry,
        *,
        sent: Callable[[Iterable[str]], None],
        noted: Callable[[Iterable[str]], None],
    ) -> None:
        self._line, self._names, self._registry = line, names, registry
        self._sent, self._on_noted = sent, noted
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Call] = deque()
        self._flights = 0
        self._scheduled = False
        self._opening: asyncio.Task[None] | None = None
        self._noted: dict[str, float] = {}

    def append(self, messages: Sequence[Message]) -> Awaitable[None]:
        """Append in order; when it raises, the first few of them, or all, may have been appended.

        But none has when it raises PayloadUnencodable.
        """
        # Of many callers most have one message, and for them a coroutine more is felt.
        if len(messages) != 1:
            return self._in_parts(messages)
        done: asyncio.Future[None] = self._loop.create_future()
        message = messages[0]
        if message.headers or not message.id.isascii():
            try:
                require_text(messages)
            except PayloadUnencodable as error:
                done.set_exception(error)
                return done
        self._queue.append((messages, done))
        if not self._scheduled:
            self._schedule()
        return done

    async def _in_parts(self, messages: Sequence[Message]) -> None:
        require_text(messages)
        # Parts go one after the other, so that never a later one is kept and an earlier one is not.
        for part in _parts(messages):
            done: asyncio.Future[None] = self._loop.create_future()
            self._queue.append((part, done))
            self._schedule()
            await done

    def _schedule(self) -> None:
        """Send a batch at the end of this turn of the event loop, with all that comes until then."""
        if self._queue and self._flights < _FLIGHTS and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        """Send a batch, once there is a connection."""
        if self._line.up:
            self._fly()
        else:
            self._opening = self._loop.create_task(self._line.open())
            self._opening.add_done_callback(self._opened)

    def _opened(self, opening: asyncio.Task[None]) -> None:
        """Send what was queued meanwhile, or fail all of it."""
        if opening.cancelled() or not (error := opening.exception()):
            self._fly()
            return
        self._scheduled = False
        calls = list(self._queue)
        self._queue.clear()
        _fail(calls, error)

    def _fly(self) -> None:
        """Send a batch of what is queued."""
        self._scheduled = False
        calls: list[_Call] = []
        keys: dict[str, int] = {}
        args: list[Arg] = []
        count = size = 0
        queue, current = self._queue, ""
        try:
            while queue and count < GATHERED and size < BATCH_BYTES:
                call = queue[0]
                messages, done = call
                if count and count + len(messages) > GATHERED:
                    break
                queue.popleft()
                if done.done():  # its caller was cancelled
                    continue
                calls.append(call)
                count += len(messages)
                for message in messages:
                    body, headers = message.body, message.headers
                    if message.key != current or headers:
                        current = message.key
                        args += ("", keys.setdefault(current, len(keys) + 1), pack_headers(headers))
                    size += len(body)
                    args += (message.id or new_id(), body, _as_text(message.published_at))
            if calls:
                self._send(calls, keys, args)
        except Exception as error:  # noqa: BLE001  whatever it is, nobody else tells those who wait
            _fail(calls, as_backend_error(error))
        self._schedule()

    def _send(self, calls: list[_Call], keys: Iterable[str], args: Sequence[Arg]) -> None:
        streams = self.note(keys)
        answer = self._line.run(APPEND, streams, args)
        self._flights += 1
        answer.add_done_callback(lambda answer: self._landed(calls, answer))
        # Those of this process who wait for it ask at once, and their questions go out together with it.
        self.ring(streams)

    def _landed(self, calls: list[_Call], answer: asyncio.Future[Any]) -> None:
        self._flights -= 1
        if error := answer.exception():
            _fail(calls, error)
        else:
            count, *stopped = answer.result()
            if stopped:
                calls = self._stop(calls, count, stopped[0])
            for _, done in calls:
                if not done.done():
                    done.set_result(None)
        self._schedule()

    def _stop(self, calls: list[_Call], count: int, why: bytes) -> list[_Call]:
        """Fail the call that stopped a batch after so many messages; return those that were done by then.

        The ones behind it were not begun, so they go again.
        """
        for position, (messages, _) in enumerate(calls):
            count -= len(messages)
            if count < 0:
                _fail([calls[position]], server_error(why.decode("utf-8", "replace")))
                self._queue.extendleft(reversed(calls[position + 1 :]))
                return calls[:position]
        return calls

    def note(self, keys: Iterable[str]) -> list[str]:
        """Have it known that these keys get messages, and return their streams."""
        now = self._loop.time()
        stale = [key for key in keys if now - self._noted.get(key, -_NOTED) >= _NOTED]
        if stale:
            if len(self._noted) > 10_000:
                self._noted.clear()
            self._noted.update(dict.fromkeys(stale, now))
            self._registry.note(stale)
            self._on_noted(stale)
        return [self._names.stream(key) for key in keys]

    def ring(self, streams: Iterable[str]) -> None:
        """Wake those who wait for what was just sent to the streams."""
        self._sent(streams)
        self._line.hurry()


def require_text(messages: Iterable[Message]) -> None:
    """Raise PayloadUnencodable when an id or header is not Unicode text: it would spoil a whole batch."""
    try:
        for message in messages:
            # Most need no closer look, which is felt.
            if message.headers or not message.id.isascii():
                _as_text((message.id, message.headers))
    except UnicodeEncodeError:
        raise PayloadUnencodable("id and headers of a message must be Unicode text") from None


def as_backend_error(error: Exception) -> BackendError:
    """Return what those are told whose batch met an error, which may be one that nobody thought of."""
    return error if isinstance(error, BackendError) else BackendError(f"cannot be sent to Redis: {error!r}")


def _parts(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """Split messages into parts that fit in a batch."""
    first = size = 0
    for position, message in enumerate(messages):
        if position - first >= BATCH or (size > 0 and size + len(message.body) > BATCH_BYTES):
            yield messages[first:position]
            first, size = position, 0
        size += len(message.body)
    if first < len(messages):
        yield messages[first:]


def _fail(calls: Iterable[_Call], error: BaseException) -> None:
    """Fail each call with an error of its own, for one that is raised twice mixes its tracebacks."""
    for _, done in calls:
        if not done.done():
            done.set_exception(copy(error))
