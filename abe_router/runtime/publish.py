"""Publishing through a table: find the contract of the key, check the payload, append the message.

These are functions of the table, so that no object keeps one that is no longer in force.
"""

from __future__ import annotations

from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import msgspec

from abe_router.backend import Backend
from abe_router.errors import NoRoute, PayloadMalformed
from abe_router.messages.message import Duplicate, Message, decode
from abe_router.observe.tracing import Tracing
from abe_router.routing.table import RouteTable
from abe_router.text import did_you_mean

#: Called with a checked message. Its context manager wraps the append, and yields the message to append: the
#: same one, or one with more headers. It sees the error of a failed append.
AroundPublish = Callable[[Message], AbstractAsyncContextManager[Message]]


async def publish(
    table: RouteTable,
    backend: Backend,
    key: str,
    payload: Any,
    *,
    headers: Mapping[str, str] | None = None,
    id: str | None = None,
    allow_unrouted: bool = False,
    around: AroundPublish | None = None,
    timeout: float | None = None,
) -> Message:
    """Check a payload and append it; return the message, a Duplicate if it was not kept.

    `timeout`, in seconds, replaces the time limit of the backend. Raise what `prepare` raises,
    PayloadUnencodable if the payload is not JSON, PublishTimeout, and BackendUnavailable. What is accepted is
    the JSON that is sent, whatever object it was made from.
    """
    contract = table.contract(key)
    if not (contract.known or allow_unrouted):
        raise _unknown(table, key)
    message = contract.message_of(key, payload, headers or {}, id)
    seconds = 0.0 if contract.deduplication is None else contract.window(id)
    if around is not None:
        async with around(message) as message:
            return await _append(backend, message, seconds, timeout)
    if seconds or timeout is not None:
        return await _append(backend, message, seconds, timeout)
    await backend.append([message])  # most messages need no more, and this is a hot path
    return message


async def _append(backend: Backend, message: Message, seconds: float, timeout: float | None) -> Message:
    return Duplicate.of(message) if await append(backend, [(message, seconds)], timeout) else message


def traced(tracing: Tracing, around: AroundPublish | None) -> AroundPublish:
    """Return what wraps an append in a span, round `around`; the message gets the context of the span."""

    @asynccontextmanager
    async def publishing(message: Message) -> AsyncIterator[Message]:
        with tracing.publishing(message) as headers:
            message = msgspec.structs.replace(message, headers=headers)
            if around is None:
                yield message
            else:
                async with around(message) as message:
                    yield message

    return publishing


def prepare(
    table: RouteTable,
    key: str,
    body: bytes,
    *,
    headers: Mapping[str, str] | None = None,
    id: str | None = None,
    allow_unrouted: bool = False,
) -> Message:
    """Return the message that publishing `body`, the payload as JSON, appends.

    Raise KeyInvalid, NoRoute, PayloadMalformed, IdInvalid, or PayloadInvalid with every violation of every
    schema that applies to `key`.
    """
    contract = table.contract(key)
    if not (contract.known or allow_unrouted):
        raise _unknown(table, key)
    return contract.message(key, body, decode(body), headers or {}, id)


def payload_bytes(data: bytes, source: str) -> bytes:
    """Return `data` without its byte order mark; raise PayloadMalformed if it cannot be a payload.

    `source` says where the data comes from.
    """
    if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise PayloadMalformed(f"{source} is UTF-16, and JSON is UTF-8")
    data = data.removeprefix(BOM_UTF8)
    if not data.strip():
        raise PayloadMalformed(f"{source} is empty, so there is no payload")
    return data


def window(table: RouteTable, key: str, id: str | None) -> float:
    """Return how long the id of a message is remembered, in seconds; `id` is what the publisher gave."""
    return table.contract(key).window(id)


async def append(
    backend: Backend, windowed: Sequence[tuple[Message, float]], timeout: float | None = None
) -> Sequence[Message]:
    """Append prepared messages, each with its window; return the duplicates, which were not kept.

    `timeout`, in seconds, replaces the time limit of the backend. Raise PublishTimeout, BackendUnavailable.
    """
    if timeout is not None:
        return await backend.append_within(windowed, timeout)
    if any(seconds for _, seconds in windowed):
        return await backend.append_once(windowed)
    await backend.append([message for message, _ in windowed])
    return ()


def _unknown(table: RouteTable, key: str) -> NoRoute:
    hint = did_you_mean(key, table.concrete_keys)
    return NoRoute(f"no key or pattern in `routes` names `{key}`" + (f"; {hint}" if hint else ""))
