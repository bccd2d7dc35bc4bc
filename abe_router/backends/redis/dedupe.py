"""Appends messages whose ids are remembered, and passes over those whose ids are."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any, NamedTuple

import msgspec

from abe_router.backends.redis.entry import pack_headers
from abe_router.backends.redis.line import Line
from abe_router.backends.redis.names import Names
from abe_router.backends.redis.publisher import BATCH, BATCH_BYTES, Publisher
from abe_router.backends.redis.scripts import APPEND_ONCE
from abe_router.backends.redis.wire import Arg
from abe_router.errors import BackendError
from abe_router.message import Message, new_id

#: Most ids that one call forgets beyond as many as it remembers.
_FORGOTTEN = 250

_as_text = msgspec.json.Encoder().encode


class _Asked(NamedTuple):
    """A message, for how many seconds its id is remembered, and the answer: whether it was passed over."""

    message: Message
    window: float
    answer: asyncio.Future[bool]


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

        When it raises, any of them may have been appended, and then their ids are remembered.
        """
        if not self._line.up:
            await self._line.open()
        if windowed and not self._asked:
            self._loop.call_soon(self._send)
        asked = [_Asked(message, window, self._loop.create_future()) for message, window in windowed]
        for each in asked:
            self._asked[each.message.key].append(each)
        answers = await asyncio.gather(*[each.answer for each in asked], return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return [each.message for each, passed_over in zip(asked, answers, strict=True) if passed_over]

    def _send(self) -> None:
        """Send all that was asked, of each stream in order."""
        queued, self._asked = self._asked, defaultdict(list)
        for key, asked in queued.items():
            for part in _parts([each for each in asked if not each.answer.done()]):
                try:
                    self._send_part(key, part)
                except BackendError as error:
                    _fail(part, error)

    def _send_part(self, key: str, part: Sequence[_Asked]) -> None:
        args: list[Arg] = [len(part) + _FORGOTTEN]
        for message, window, _ in part:
            args += (
                math.ceil(window * 1000),
                message.id or new_id(),
                message.body,
                _as_text(message.published_at),
                pack_headers(message.headers),
            )
        streams = self._publisher.note([key])
        reply = self._line.run(APPEND_ONCE, (*streams, self._names.ids(key)), args)
        reply.add_done_callback(lambda reply: _tell(part, reply))
        self._publisher.ring(streams)


def _tell(part: Sequence[_Asked], reply: asyncio.Future[Any]) -> None:
    if error := reply.exception():
        _fail(part, error)
        return
    passed_over = set(reply.result())
    for place, (_, _, answer) in enumerate(part):
        if not answer.done():
            answer.set_result(place in passed_over)


def _parts(asked: Sequence[_Asked]) -> Iterable[list[_Asked]]:
    """Split what is asked into parts that fit in a call."""
    part: list[_Asked] = []
    size = 0
    for each in asked:
        if part and (len(part) == BATCH or size + len(each.message.body) > BATCH_BYTES):
            yield part
            part, size = [], 0
        part.append(each)
        size += len(each.message.body)
    if part:
        yield part


def _fail(part: Iterable[_Asked], error: BaseException) -> None:
    """Fail each with an error of its own, for one that is raised twice mixes its tracebacks."""
    for _, _, answer in part:
        if not answer.done():
            answer.set_exception(copy(error))
