"""A live tail: the messages of a pattern as they are accepted, sampled and masked.

It reads by `Backend.peek`, so it leases, moves and counts nothing. It holds one read at a time, which is
bounded.

States: catching up (it shows all messages behind its cursor, no faster than it samples), live (it shows a
sample of what comes). It is live once a read has reached the end, and stays so. A live tail that falls behind
goes to the end and says so.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from abe_router.backend import Backend, Peeked, PeekState
from abe_router.errors import PayloadMalformed
from abe_router.messages.message import Message, decode
from abe_router.messages.pattern import is_group, is_pattern
from abe_router.messages.pointer import find, is_pointer
from abe_router.operations.errors import OperationError
from abe_router.operations.masked import masked_headers, masked_payload
from abe_router.routing.table import RouteTable

#: Most messages shown in a second, unless the caller wants fewer or more.
SAMPLE = 200.0
#: Messages of one page, and most pages that are read without a pause.
PAGE, MOST_PAGES = 250, 8
#: Most pages that are read for the newest messages.
NEWEST_PAGES = 4
#: Shortest pause between two reads, in seconds. A pause is also PATIENCE times as long as the read took, so
#: that the backend is busy with a tail for at most 5 % of the time.
EVERY, PATIENCE = 0.1, 20.0
#: A payload of up to so many bytes is masked at once, and a larger one in a thread: it can take 0.2 s.
SMALL = 2_000


class Tailed(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of a tail.

    `payload` has `(masked)` in place of what the schemas of the key mark as `x-sensitive`. It is UNSET if the
    caller may not see payloads. `state` and `deliveries` are those of the group, if the tail is of a group.
    `omitted` is the number of matching messages that were read since the one before and are not shown.
    `skipped` means that the tail fell behind, and that messages before this one were not read. `cursor`
    continues the tail after this message.
    """

    key: str
    id: str
    published_at: float
    cursor: str
    headers: Mapping[str, str] = {}
    payload: Any = msgspec.UNSET
    state: PeekState = "retained"
    deliveries: int = 0
    omitted: int = 0
    skipped: bool = False


class Newest(msgspec.Struct, frozen=True):
    """The newest messages of a pattern or a group, oldest first.

    `after` is a cursor before the first of them, so that later calls find them and what comes. With
    `skipped`, more messages are stored than one call reads: there are none, and `after` is at the end.
    """

    messages: Sequence[Tailed]
    after: str
    skipped: bool = False


async def newest(
    backend: Backend,
    table: RouteTable,
    pattern: str,
    *,
    group: str | None = None,
    after: str = "",
    limit: int = 50,
    where: Mapping[str, Any] | None = None,
    payloads: bool = True,
) -> Newest:
    """Return the newest messages, up to `limit`, behind a cursor; the other arguments are those of `tail`.

    Messages are read from the cursor on, up to 1,000. Raise OperationError as `tail` does, and BackendError.
    """
    check_tail(backend, pattern, group, where, payloads=payloads)
    peeked, ended = await _read(backend, pattern, group, after, most=NEWEST_PAGES)
    if not ended:
        return Newest((), await backend.peek_end(pattern, group), skipped=True)

    def shown() -> Newest:
        found: list[Peeked] = []
        for each in reversed(peeked):
            if len(found) == limit:
                break
            found += _matching(table, (each,), where) if where else (each,)
        found.reverse()
        first = peeked.index(found[0]) if found else 0
        messages = [_tailed(table, each, payloads=payloads, omitted=0, skipped=False) for each in found]
        return Newest(messages, peeked[first - 1].cursor if first else after)

    return await asyncio.to_thread(shown)


async def tail(
    backend: Backend,
    table: RouteTable,
    pattern: str,
    *,
    group: str | None = None,
    after: str | None = None,
    sample: float = SAMPLE,
    where: Mapping[str, Any] | None = None,
    payloads: bool = True,
) -> AsyncGenerator[Tailed, None]:
    """Yield the messages whose key matches `pattern`, as they are accepted, until the caller stops.

    With a group, they are the unsettled messages of the subscription `pattern/group`. `after` is the cursor
    of an earlier message: None begins with the next message that is accepted, and an empty text with the
    oldest one that is stored. About `sample` messages are shown in a second. `where` maps JSON pointers to
    the values that a message must have there. It reads the masked payload, so it finds nothing that is not
    shown. Without `payloads`, neither payloads nor headers are shown.

    A message that all its subscriptions settle, and that is removed between two reads, is not seen. Without
    a revision, the schemas of `table` are unknown, and every payload is masked. Raise OperationError if the
    arguments do not fit or the backend cannot peek, and BackendError.
    """
    check_tail(backend, pattern, group, where, payloads=payloads)
    cursor = await backend.peek_end(pattern, group) if after is None else after
    is_live, skipped, omitted = after is None, False, 0
    while True:
        began = time.monotonic()
        peeked, ended = await _read(backend, pattern, group, cursor)
        if peeked:
            cursor = peeked[-1].cursor
        took = time.monotonic() - began
        pause = max(EVERY, PATIENCE * took)
        found = await asyncio.to_thread(_matching, table, peeked, where) if where else peeked
        chosen = _sampled(found, max(1, round(sample * pause))) if is_live else range(len(found))
        last = -1
        for at in chosen:
            omitted += at - last - 1
            show = partial(_tailed, table, found[at], payloads=payloads, omitted=omitted, skipped=skipped)
            yield show() if len(found[at].message.body) <= SMALL else await asyncio.to_thread(show)
            last, omitted, skipped = at, 0, False
        omitted += len(found) - last - 1
        if is_live and not ended:
            cursor, skipped = await backend.peek_end(pattern, group), True
        is_live = is_live or ended
        await asyncio.sleep(max(pause, len(chosen) / sample))


async def _read(
    backend: Backend, pattern: str, group: str | None, cursor: str, *, most: int = MOST_PAGES
) -> tuple[Sequence[Peeked], bool]:
    """Return messages behind the cursor, a bounded number, and whether these are all."""
    found: list[Peeked] = []
    for _ in range(most):
        try:
            page = await backend.peek(pattern, group, limit=PAGE, after=cursor)
        except ValueError as error:
            raise OperationError(str(error)) from error
        found += page
        if len(page) < PAGE:
            return found, True
        cursor = page[-1].cursor
    return found, False


def _sampled(found: Sequence[Peeked], most: int) -> Sequence[int]:
    """Return the positions of at most `most` messages, drawn at random, in order."""
    if len(found) <= most:
        return range(len(found))
    return sorted(random.sample(range(len(found)), most))


def _tailed(table: RouteTable, peeked: Peeked, *, payloads: bool, omitted: int, skipped: bool) -> Tailed:
    message = peeked.message
    return Tailed(
        key=message.key,
        id=message.id,
        published_at=message.published_at,
        cursor=peeked.cursor,
        headers=masked_headers(table, message) if payloads else {},
        payload=masked_payload(table, message) if payloads else msgspec.UNSET,
        state=peeked.state,
        deliveries=peeked.deliveries,
        omitted=omitted,
        skipped=skipped,
    )


def _matching(table: RouteTable, peeked: Sequence[Peeked], where: Mapping[str, Any]) -> Sequence[Peeked]:
    """Return the messages whose masked payload has the values of `where`."""

    def fits(message: Message) -> bool:
        payload = masked_payload(table, message)
        return all(holds(payload, pointer, value) for pointer, value in where.items())

    return [each for each in peeked if fits(each.message)]


def holds(payload: Any, pointer: str, value: Any) -> bool:
    """Return whether a payload has a value at a JSON pointer."""
    try:
        found = find(payload, pointer)
    except LookupError:
        return False
    return isinstance(found, bool) is isinstance(value, bool) and bool(found == value)


def parse_filter(text: str) -> tuple[str, Any]:
    """Return the JSON pointer and the value of a filter `POINTER=VALUE`; raise ValueError if it is none.

    A value that is not JSON is text, for a shell takes the quotes of a text away.
    """
    pointer, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"`{text}` is not POINTER=JSON, such as /total=5")
    try:
        return pointer, decode(value.encode())
    except PayloadMalformed:
        return pointer, value


def check_tail(
    backend: Backend, pattern: str, group: str | None, where: Mapping[str, Any] | None, *, payloads: bool
) -> None:
    """Raise OperationError when the arguments of a tail do not fit."""
    if not backend.features.peek:
        raise OperationError("the backend cannot show messages", hint="`abe-router backends` lists features")
    if not is_pattern(pattern):
        raise OperationError(
            f"`{pattern}` is not a key or a pattern", hint="such as `orders.created` or `orders.#`"
        )
    if group is not None and not is_group(group):
        raise OperationError(f"`{group}` is not a group")
    if where and not payloads:
        raise OperationError("a filter on payloads needs the right to see payloads")
    for pointer in where or ():
        if not is_pointer(pointer):
            raise OperationError(f"`{pointer}` is not a JSON pointer", hint="such as `/customer/id`")
