"""What may be shown of a message: its payload and its headers, with sensitive values masked.

Every rendering shows messages by these two functions. Schemas are known if the table has a revision. Without
them, and for a key that is none, nothing is shown. A schema that marks a value hides what is not JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from abe_router.errors import KeyInvalid, PayloadMalformed
from abe_router.messages.message import Message, decode
from abe_router.routing.contract import MessageContract
from abe_router.routing.table import RouteTable
from abe_router.schema.sensitive import MASKED


def masked_payload(table: RouteTable, message: Message, *, exact: bool = False) -> Any:
    """Return a payload with `(masked)` in place of what the schemas of its key mark as `x-sensitive`.

    A body that is not JSON is text with escapes, or is masked as a whole if a schema marks anything. With
    `exact`, a payload of which nothing may be masked is the JSON as it was published, a `msgspec.Raw`.
    """
    contract = _contract(table, message)
    if contract is None:
        return MASKED
    is_open = not _marks_any(contract)
    try:
        payload = decode(message.body)
    except PayloadMalformed:
        return message.body.decode(errors="backslashreplace") if is_open else MASKED
    if is_open:
        return msgspec.Raw(message.body) if exact else payload
    return contract.mask(payload)


def masked_headers(table: RouteTable, message: Message) -> Mapping[str, str]:
    """Return the headers of a message. Each is `(masked)` if they may hide something sensitive.

    Without a JSON body, they may be the fields of an entry of another program, and so its payload. They are
    shown only if the schemas are known and mark nothing. A field's name is masked unless a schema has it.
    """
    contract = _contract(table, message)
    if contract is None or _marks_any(contract):
        try:
            decode(message.body)
        except PayloadMalformed:
            known = contract.names() if contract is not None else frozenset[str]()
            return {name if name in known else MASKED: MASKED for name in message.headers}
    return message.headers


def _contract(table: RouteTable, message: Message) -> MessageContract | None:
    """Return the contract of a message, None if its schemas are not known."""
    try:
        return table.contract(message.key) if table.revision else None
    except KeyInvalid:  # another program stored it
        return None


def _marks_any(contract: MessageContract) -> bool:
    return any(schema.has_sensitive for schema in contract.schemas)
