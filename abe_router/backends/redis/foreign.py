"""Entries of other programs that have no field `data`.

FastStream writes one field, `__data__`: an envelope of headers and payload. All other entries without `data`
have no payload that we know of. Their fields are shown as headers, and stay as they are on the server.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

_ENVELOPE = b"__data__"
#: An envelope of FastStream begins with this, its version, and where its headers and its payload begin.
_MAGIC = b"\x89BIN\r\n\x1a\n"
_HEAD = struct.Struct(">8sHII")
_SHORT = struct.Struct(">H")
#: Most fields that a reason names, and most characters of each name and of a value that is shown as a header.
_NAMED, _NAME, _SHOWN = 10, 50, 1000
_json = msgspec.json.Decoder(dict[str, Any]).decode
_OURS = frozenset({b"id", b"at", b"headers", b"only", b"dead_letter"})


def read_foreign(values: Mapping[bytes, bytes]) -> tuple[bytes, dict[str, str], str]:
    """Return payload, headers and fault of an entry without `data`; the fault is empty if there is none."""
    if (envelope := _opened(values.get(_ENVELOPE))) is not None:
        return *envelope, ""
    shown = {_text(name): _text(value) for name, value in values.items() if name not in _OURS}
    named = ", ".join(name[:_NAME] for name in list(shown)[:_NAMED]) or "none that tells more"
    more = f" and {len(shown) - _NAMED} more" if len(shown) > _NAMED else ""
    return b"", shown, f"no field `data`; it has: {named}{more}"


def _opened(envelope: bytes | None) -> tuple[bytes, dict[str, str]] | None:
    """Return payload and headers of an envelope, None if it is none."""
    if envelope is None:
        return None
    try:
        return _binary(envelope) if envelope.startswith(_MAGIC) else _legacy(envelope)
    except (struct.error, UnicodeDecodeError, msgspec.DecodeError, RecursionError, KeyError, AttributeError):
        return None


def _binary(envelope: bytes) -> tuple[bytes, dict[str, str]]:
    _, version, at, payload = _HEAD.unpack_from(envelope)
    if version != 1 or not at <= payload <= len(envelope):
        raise struct.error("another version, or cut off")
    return envelope[payload:], _headers(envelope[:payload], at)


def _headers(envelope: bytes, at: int) -> dict[str, str]:
    """Return the headers that begin at a position, up to the first that cannot be read.

    FastStream 0.7 writes the length of a text in characters, which is too short for some texts.
    """
    texts: list[str] = []
    with suppress(struct.error, UnicodeDecodeError):
        (count,) = _SHORT.unpack_from(envelope, at)
        at += _SHORT.size
        for _ in range(2 * count):
            (size,) = _SHORT.unpack_from(envelope, at)
            at += _SHORT.size + size
            texts.append(envelope[at - size : at].decode())
    return dict(zip(texts[::2], texts[1::2], strict=False))


def _legacy(envelope: bytes) -> tuple[bytes, dict[str, str]]:
    """Open the JSON envelope of FastStream before 0.6: the payload is a text in it."""
    record = _json(envelope)
    headers = {name: str(value) for name, value in (record.get("headers") or {}).items()}
    return record["data"].encode(), headers


def _text(field: bytes) -> str:
    return field[:_SHOWN].decode("utf-8", "backslashreplace")
