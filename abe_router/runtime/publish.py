"""Publishing through the table: match, check, hand to the backend.

`publish` is a function of the table, so that nobody holds a stale one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from abe_router.backend import Backend
from abe_router.errors import NoRoute
from abe_router.messages.message import Duplicate, Message, decode, encode_and_read
from abe_router.routing.table import RouteTable


def prepare(
    table: RouteTable,
    key: str,
    body: bytes,
    *,
    headers: Mapping[str, str] | None = None,
    id: str | None = None,
    allow_unrouted: bool = False,
) -> Message:
    """Return the message that publishing `body`, the payload as JSON, would append.

    Raise KeyInvalid, NoRoute, PayloadMalformed, PayloadInvalid, with every violation of every schema that
    the table puts on `key`, or IdInvalid.
    """
    terms = table.contract(key)
    if not (terms.known or allow_unrouted):
        raise _unknown(table, key)
    return terms.message(key, body, decode(body), headers or {}, id)


def window(table: RouteTable, key: str, id: str | None) -> float:
    """Return for how many seconds the id of a message is remembered, when `id` is what was said of it."""
    return table.contract(key).window(id)


async def append(backend: Backend, windowed: Sequence[tuple[Message, float]]) -> Sequence[Message]:
    """Append messages, each with its window; return those that were not kept, for their ids are remembered.

    Raises BackendUnavailable.
    """
    if any(seconds for _, seconds in windowed):
        return await backend.append_once(windowed)
    await backend.append([message for message, _ in windowed])
    return ()


async def publish(
    table: RouteTable,
    backend: Backend,
    key: str,
    payload: Any,
    *,
    headers: Mapping[str, str] | None = None,
    id: str | None = None,
    allow_unrouted: bool = False,
) -> Message:
    """Check a payload against the table and append it; return the message, a Duplicate if it was not kept.

    Raises what `prepare` raises, PayloadUnencodable when the payload is not JSON, and
    BackendUnavailable. What is checked is the JSON that is sent, not the object it was made from.
    """
    terms = table.contract(key)
    if not (terms.known or allow_unrouted):
        raise _unknown(table, key)
    body, value = encode_and_read(payload)
    message = terms.message(key, body, value, headers or {}, id)
    if terms.deduplication is not None and (seconds := terms.window(id)):
        return Duplicate.of(message) if await backend.append_once([(message, seconds)]) else message
    await backend.append([message])
    return message


def _unknown(table: RouteTable, key: str) -> NoRoute:
    close = get_close_matches(key, table.concrete_keys, 1)
    hint = f"; did you mean `{close[0]}`?" if close else ""
    return NoRoute(f"no route and no schema knows `{key}`{hint}")
