"""The audit: one record for each act of an operator, with its author, its reason and its result.

The acts are JSON values in the bucket `audit` of the backend's key-value store, named by their numbers. What
they say about the author is testimony, and no proof: everything that can reach the backend can write there.
"""

from __future__ import annotations

import logging
import os
import pwd
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from abe_router.backend import Backend, next_number, read_stored
from abe_router.errors import BackendError
from abe_router.text import recordable

_log = logging.getLogger(__name__)

#: The bucket with one entry for each act.
AUDIT = "audit"
#: Acts that are kept; older ones are deleted.
KEPT = 1_000
#: Longest text in an act, in characters.
LONGEST = 1_000


@dataclass(frozen=True)
class Author:
    """The author of an act: `ada@host`, or the name of a token. `source` is where it came from."""

    name: str
    source: str


class Act(msgspec.Struct, frozen=True):
    """One act: `author` did `action` to `target`, because of `why`, and `result` came of it.

    `at` is in seconds since the epoch, by the clock of the process that acted. `action` is a command, such as
    `pause` or `dead replay`. Texts are shortened, without credentials, and escape what JSON cannot carry.
    """

    number: int
    at: float
    author: str
    source: str
    action: str
    target: str
    why: str = ""
    result: str = ""


def local_author() -> Author:
    """Return the author of what this process does for its user: `ada@host`, `command line`.

    Root that acts through sudo has the name of the user that called sudo.
    """
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:  # a container may run as a user without a name
        name = f"uid {uid}"
    if uid == 0:
        name = os.environ.get("SUDO_USER") or name
    return Author(f"{name}@{socket.gethostname()}", "command line")


async def record_act(
    backend: Backend, author: Author, action: str, target: str, *, why: str = "", result: str = ""
) -> None:
    """Record an act after it was done. The newest 1,000 are kept.

    The act counts, whether it can be recorded or not: an error of the backend is logged and not raised. A
    backend without a key-value store records nothing.
    """
    if not backend.features.key_value:
        return
    now = time.time()
    said = (author.name, author.source, action, target, why, result)
    texts = (recordable(text, LONGEST) for text in said)
    try:
        await _append(backend, Act(0, now, *texts))
    except BackendError as error:
        _log.warning("cannot record that %s did `%s` to %s: %s", author.name, action, target, error)


async def acts(backend: Backend, *, limit: int = 100) -> Sequence[Act]:
    """Return the newest acts, newest first; none without a key-value store. Unreadable ones are skipped."""
    if not backend.features.key_value:
        return ()
    found = (read_stored(entry.value, Act) for entry in (await backend.entries(AUDIT)).values())
    return sorted((act for act in found if act is not None), key=lambda act: -act.number)[:limit]


async def _append(backend: Backend, act: Act) -> None:
    """Store an act under the next free number, and delete the oldest ones."""
    while True:
        names = await backend.entries(AUDIT)
        number = next_number(names)
        value = msgspec.json.encode(msgspec.structs.replace(act, number=number))
        if await backend.put(AUDIT, str(number), value, expected=0):
            break  # otherwise another process took the number
    for old in names:
        if old.isdecimal() and int(old) <= number - KEPT:
            await backend.delete(AUDIT, old)
