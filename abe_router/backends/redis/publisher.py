"""Appends messages: what comes in while one batch is under way goes in the next, in one call."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from abe_router.backends.redis.entry import pack_headers
from abe_router.backends.redis.fault import server_error
from abe_router.backends.redis.line import Line, forget
from abe_router.backends.redis.names import Names
from abe_router.backends.redis.registry import Registry
from abe_router.backends.redis.scripts import APPEND
from abe_router.backends.redis.wire import Arg
from abe_router.errors import BackendError
from abe_router.message import Message, new_id

#: Most messages and bytes of one batch. While it runs the server does nothing else, so it must be short.
BATCH, BATCH_BYTES = 500, 1024 * 1024
#: Batches under way at a time: the server works on one while the next is put together.
_FLIGHTS = 2
#: How long, in seconds, a key counts as noted. Noting it anew heals a registry that was lost.
_NOTED = 1.0


class _Call:
    """The messages of one `append`, or a part of them, and who waits for them."""

    __slots__ = ("done", "messages")

    def __init__(self, messages: Sequence[Message], done: asyncio.Future[None]) -> None:
        self.messages, self.done = messages, done


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
        self._noted: dict[str, float] = {}

    async def append(self, messages: Sequence[Message]) -> None:
        """Append in order; when it raises, the first few of them, or all, may have been appended."""
        if len(messages) == 1:
            await self._enqueue(messages)
            return
        for part in _parts(messages):
            # One after the other, so that never a later one is kept and an earlier one is not.
            await self._enqueue(part)

    async def _enqueue(self, messages: Sequence[Message]) -> None:
        if not self._line.up:
            await self._line.open()
        call = _Call(messages, self._loop.create_future())
        self._queue.append(call)
        self._schedule()
        await call.done

    def _schedule(self) -> None:
        if not self._scheduled and self._queue and self._flights < _FLIGHTS:
            self._scheduled = True
            self._loop.call_soon(self._fly)

    def _fly(self) -> None:
        """Send a batch of what is queued."""
        self._scheduled = False
        calls: list[_Call] = []
        streams: dict[str, int] = {}
        args: list[Arg] = []
        count = size = 0
        queue, current = self._queue, ""
        while queue and count < BATCH and size < BATCH_BYTES:
            call = queue[0]
            if calls and count + len(call.messages) > BATCH:
                break
            queue.popleft()
            if call.done.done():  # its caller was cancelled
                continue
            calls.append(call)
            for message in call.messages:
                if message.key != current:
                    current = message.key
                    args += ("", streams.setdefault(current, len(streams) + 1))
                headers = message.headers
                args += (
                    message.id or new_id(),
                    message.body,
                    message.published_at,
                    pack_headers(headers) if headers else b"",
                )
                size += len(message.body)
            count += len(call.messages)
        if calls:
            self._send(calls, streams, args)
        self._schedule()

    def _send(self, calls: list[_Call], keys: Iterable[str], args: Sequence[Arg]) -> None:
        streams = [self._names.stream(key) for key in keys]
        try:
            self._note(keys)
            answer = self._line.run(APPEND, streams, args)
        except BackendError as error:
            _fail(calls, error)
            return
        self._flights += 1
        answer.add_done_callback(lambda answer: self._landed(calls, answer))
        self._sent(streams)

    def _landed(self, calls: list[_Call], answer: asyncio.Future[Any]) -> None:
        self._flights -= 1
        if error := answer.exception():
            _fail(calls, error)
        else:
            done, *stopped = answer.result()
            self._settle(calls, done, stopped)
        self._schedule()

    def _settle(self, calls: list[_Call], done: int, stopped: Sequence[bytes]) -> None:
        """Tell each caller what became of its messages; `done` of all were appended."""
        for position, call in enumerate(calls):
            done -= len(call.messages)
            if done < 0:
                # This call stopped the batch. The ones behind it were not begun, so they go again.
                _fail([call], server_error(stopped[0].decode("utf-8", "replace")))
                self._queue.extendleft(reversed(calls[position + 1 :]))
                return
            if not call.done.done():
                call.done.set_result(None)

    def _note(self, keys: Iterable[str]) -> None:
        now = self._loop.time()
        stale = [key for key in keys if now - self._noted.get(key, -_NOTED) >= _NOTED]
        if not stale:
            return
        if len(self._noted) > 10_000:
            self._noted.clear()
        self._noted.update(dict.fromkeys(stale, now))
        forget(self._registry.note(stale))
        self._on_noted(stale)


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
    """Fail each call with an error of its own, for an exception raised twice mixes its tracebacks."""
    for call in calls:
        if not call.done.done():
            copy = type(error)(*error.args)
            copy.__dict__.update(error.__dict__)
            call.done.set_exception(copy)
