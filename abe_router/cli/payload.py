"""A payload as the command line gives it: an argument, a file, or stdin.

It stays the bytes it came as. JSON is checked elsewhere and never written anew, so numbers keep every digit.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from abe_router.errors import PayloadMalformed
from abe_router.messages.message import MAX_BYTES
from abe_router.runtime.publish import payload_bytes


def read_payload(argument: str) -> bytes:
    """Return the bytes of a payload argument: JSON itself, `@FILE`, or `-` for stdin."""
    if argument == "-":
        # A longer payload is rejected for its length, so an endless stream need not be read to its end.
        return _checked(sys.stdin.buffer.read(MAX_BYTES + 1), "stdin")
    if argument.startswith("@"):
        try:
            return _checked(Path(argument[1:]).read_bytes(), f"`{argument[1:]}`")
        except OSError as error:
            raise click.UsageError(f"cannot read `{argument[1:]}`: {error.strerror}") from error
    return _checked(os.fsencode(argument), "the argument")


def _checked(data: bytes, source: str) -> bytes:
    """Return the data without its byte order mark; raise UsageError when it cannot be JSON."""
    try:
        return payload_bytes(data, source)
    except PayloadMalformed as error:
        raise click.UsageError(str(error)) from None
