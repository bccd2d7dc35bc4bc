"""Appends messages whose ids are remembered, and passes over those whose ids are."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from typing import Any, NamedTuple

import msgspec

from abe_router.backends.redis.entry import pack_headers
from abe_router.backends.redis.line import Line
from abe_router.backends.redis.names import Names
from abe_router.backends.redis.publisher import BATCH, BATCH_BYTES, Publisher, as_backend_error, require_text
from abe_router.backends.redis.scripts import APPEND_ONCE
from abe_router.backends.redis.wire import Arg
from abe_router.messages.message import Message, new_id

#: Most ids that one call forgets beyond as many as it remembers.
_FORGOTTEN = 250

_as_text = msgspec.json.Encoder().encode


class _Asked(NamedTuple):
    """Messages of one stream, each with its window, and the answer: the places of those passed over."""

    windowed: Sequence[tuple[Message, float]]
    answer: asyncio.Future[list[int]]


class Deduplicator:
    """Appends to the streams, to each with one call for all that is asked in a turn of the event loop.

    A stream and its ids are in one slot, and so is all that a call touches.
    """

    def __init__(self, line: Line, names: Names, publisher: Publisher) -> None:
        self._line, self._names, self._publisher = line, names, publisher
        self._loop = asyncio.get_running_loop()
        self._asked: dict[str, list[_Asked]] = defaultdict(list)

    async def append(self, windowed: Sequence[tuple[Message, float]]) -> list[Message]:
        """Append each message with its window in seconds; return those that were passed over.

        When it raises, any of them may have been appended, and then their ids are remembered; but none has
        when it raises PayloadUnencodable.
        """
        require_text(message for message, _ in windowed)
        if not self._line.up:
            await self._line.open()
        if len(windowed) == 1:
            return [windowed[0][0]] if await self._ask(windowed) else []
        parts = list(_parts(windowed))
        asked = [self._ask([windowed[place] for place in part]) for part in parts]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        passed_over: list[int] = []
        for part, answer in zip(parts, answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            passed_over += [part[place] for place in answer]
        return [windowed[place][0] for place in sorted(passed_over)]

    def _ask(self, windowed: Sequence[tuple[Message, float]]) -> asyncio.Future[list[int]]:
        """Have messages of one stream sent at the end of this turn."""
        if not self._asked:
            self._loop.call_soon(self._send)
        answer: asyncio.Future[list[int]] = self._loop.create_future()
        self._asked[windowed[0][0].key].append(_Asked(windowed, answer))
        return answer

    def _send(self) -> None:
        """Send all that was asked, of each stream in order."""
        queued, self._asked = self._asked, defaultdict(list)
        for key, asked in queued.items():
            for calls in _batches([each for each in asked if not each.answer.done()]):
                try:
                    self._send_batch(key, calls)
                except Exception as error:  # noqa: BLE001  whatever it is, nobody else tells those who wait
                    _fail(calls, as_backend_error(error))

    def _send_batch(self, key: str, calls: Sequence[_Asked]) -> None:
        args: list[Arg] = [_FORGOTTEN + sum(len(windowed) for windowed, _ in calls)]
        for windowed, _ in calls:
            for message, window in windowed:
                headers = message.headers
                args += (
                    math.ceil(window * 1000),
                    message.id or new_id(),
                    message.body,
                    _as_text(message.published_at),
                    pack_headers(headers) if headers else b"",
                )
        streams = self._publisher.note([key])
        reply = self._line.run(APPEND_ONCE, (*streams, self._names.ids(key)), args)
        reply.add_done_callback(lambda reply: _tell(calls, reply))
        self._publisher.ring(streams)


def _tell(calls: Sequence[_Asked], reply: asyncio.Future[Any]) -> None:
    if error := reply.exception():
        _fail(calls, error)
        return
    places, first = set(reply.result()), 0
    for windowed, answer in calls:
        if not answer.done():
            answer.set_result([place for place in range(len(windowed)) if first + place in places])
        first += len(windowed)


def _parts(windowed: Sequence[tuple[Message, float]]) -> Iterator[list[int]]:
    """Split messages, by their places, into parts of one key each that fit in a call."""
    of_keys: dict[str, list[int]] = defaultdict(list)
    for place, (message, _) in enumerate(windowed):
        of_keys[message.key].append(place)
    for places in of_keys.values():
        part: list[int] = []
        size = 0
        for place in places:
            length = len(windowed[place][0].body)
            if part and (len(part) == BATCH or size + length > BATCH_BYTES):
                yield part
                part, size = [], 0
            part.append(place)
            size += length
        yield part


def _batches(asked: Sequence[_Asked]) -> Iterator[list[_Asked]]:
    """Put together what fits in a call."""
    batch: list[_Asked] = []
    count = size = 0
    for each in asked:
        n, length = len(each.windowed), sum(len(message.body) for message, _ in each.windowed)
        if batch and (count + n > BATCH or size + length > BATCH_BYTES):
            yield batch
            batch, count, size = [], 0, 0
        batch.append(each)
        count, size = count + n, size + length
    if batch:
        yield batch


def _fail(calls: Iterable[_Asked], error: BaseException) -> None:
    """Fail each with an error of its own, for one that is raised twice mixes its tracebacks."""
    for _, answer in calls:
        if not answer.done():
            answer.set_exception(copy(error))
