"""Payloads as a command line gives them: an argument, a file, a stream of lines.

They stay the bytes they were: JSON is checked elsewhere and never written anew, so a number of any size
arrives as it was typed.
"""

from __future__ import annotations

import os
import sys
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import click
import msgspec

from abe_router.errors import PayloadMalformed
from abe_router.messages.message import MAX_BYTES

#: Longest line of an NDJSON file, in bytes: the largest payload, with room for its key, headers and id.
MAX_LINE = 2 * MAX_BYTES

#: Bytes asked for in one read; a pipe answers with what it has.
_CHUNK = 1 << 20


def read_payload(argument: str) -> bytes:
    """Return the bytes of a payload argument: JSON itself, `@FILE`, or `-` for stdin."""
    if argument == "-":
        # Whatever is longer is refused for its length, so an endless stream need not end.
        return _readable(sys.stdin.buffer.read(MAX_BYTES + 1), "what came on stdin")
    if argument.startswith("@"):
        try:
            return _readable(Path(argument[1:]).read_bytes(), f"`{argument[1:]}`")
        except OSError as error:
            raise click.UsageError(f"cannot read `{argument[1:]}`: {error.strerror}") from error
    return _readable(os.fsencode(argument), "the argument")


def _readable(data: bytes, what: str) -> bytes:
    """Return what a program wrote, without its mark; raise UsageError when it cannot be JSON."""
    if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise click.UsageError(f"{what} is UTF-16, and JSON is UTF-8")
    data = data.removeprefix(BOM_UTF8)
    if not data.strip():
        raise click.UsageError(f"{what} is empty, so there is no payload")
    return data


class Envelope(msgspec.Struct, forbid_unknown_fields=True):
    """A line that names its own key."""

    key: str
    payload: msgspec.Raw
    headers: dict[str, str] = {}
    id: str | None = None


_decode = msgspec.json.Decoder(Envelope).decode


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an NDJSON stream; `number` counts from 1. `text` is None when it is over MAX_LINE."""

    number: int
    text: bytes | None

    def envelope(self, key: str | None, headers: Mapping[str, str]) -> Envelope:
        """Return what the line says to publish; raise PayloadMalformed when it says nothing of use.

        With a `key` the whole line is a payload for it; without, the line has to name one. `headers` go
        with every line, and those of the line itself come first.
        """
        if self.text is None:
            raise PayloadMalformed(f"the line is longer than {MAX_LINE:,} bytes")
        if key is not None:
            return Envelope(key, msgspec.Raw(self.text), dict(headers))
        try:
            found = _decode(self.text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise PayloadMalformed(f'the line is not {{"key": ..., "payload": ...}}: {error}') from None
        found.headers = {**headers, **found.headers}
        return found


def read_lines(stream: BinaryIO, limit: int) -> Iterator[list[Line]]:
    """Yield the lines of a stream as they arrive, at most `limit` at a time, without the empty ones."""
    number = 0
    for texts in _chunks(stream):
        lines = []
        for text in texts:
            number += 1
            if text is None or (text := text.strip()):
                lines.append(Line(number, text))
        for start in range(0, len(lines), limit):
            yield lines[start : start + limit]


def _chunks(stream: BinaryIO) -> Iterator[list[bytes | None]]:
    """Yield the lines that are whole after each read; None stands for a line that is too long."""
    rest, skipping, first = b"", False, True
    while chunk := _read(stream):
        if first:
            chunk, first = chunk.removeprefix(BOM_UTF8), False
        *whole, rest = (rest + chunk).split(b"\n")
        found: list[bytes | None] = [text if len(text) <= MAX_LINE else None for text in whole]
        if skipping and found:
            found[0], skipping = None, False
        if len(rest) > MAX_LINE:
            rest, skipping = b"", True
        elif skipping:
            rest = b""
        yield found
    if rest or skipping:
        yield [None if skipping or len(rest) > MAX_LINE else rest]


def _read(stream: BinaryIO) -> bytes:
    """Read what is there, at most _CHUNK bytes; wait only while there is nothing."""
    return os.read(stream.fileno(), _CHUNK)
