"""The scripts that run inside Redis, for steps that happen whole or not at all.

They are the files in `lua`. Redis undoes nothing when a script fails half-way, so each script writes what
must not be lost before it removes anything. Times are the server's. All keys come in KEYS, so that on a
cluster a script runs wherever its keys share a hash tag.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path

_FOLDER = Path(__file__).parent / "lua"

#: An answer to a look ends with the entry that brings it to as many bytes. For deliveries, see `large.lua`.
ANSWER_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and the hash by which the server remembers it."""

    text: str
    sha: str


def _load(*files: str) -> Script:
    text = "".join((_FOLDER / f"{file}.lua").read_text("utf-8") for file in files)
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def without_proof(args: tuple[str | bytes | int | float, ...]) -> tuple[str | bytes | int | float, ...]:
    """Return a command as another server may get it; an ack by a number then lists what it acks.

    Its arguments are the command, the script, 3, three keys, group, consumer, delivery count and number.
    """
    return (*args[:9], 0, *args[10:]) if args[1] in (ACK.sha, ACK.text) else args


# Append.
APPEND = _load("now", "dedupe", "append")
# Move what was emitted to another hash tag.
OUTBOX = _load("now", "large", "bounded", "ownership", "outbox")
MOVE = _load("now", "dedupe", "move")
# Read.
CLAIM = _load("now", "idle", "large", "take", "claim")
RECOVER = _load("now", "large", "take", "recover")
RECREATE = _load("recreate")
GAPS = _load("group", "gaps")
DUE = _load("now", "idle", "due")
# Settle.
ACK = _load("fence", "ack")
EMIT = _load("now", "fence", "dedupe", "emit")
EXTEND = _load("fence", "extend")
EXTEND_UNREAD = _load("extend_unread")
RELEASE = _load("now", "fence", "release")
DELAY = _load("now", "fence", "failed", "delay")
POSTPONE = _load("now", "fence", "failed", "postpone")
DEAD_LETTER = _load("fence", "large", "dead_letter")
REPLAY = _load("replay")
DEAD = _load("dead")
REFUSED = _load("refused")
# Own a stream.
ACQUIRE = _load("now", "idle", "large", "take", "group", "ownership", "acquire")
RENEW = _load("now", "ownership", "renew")
RELEASE_OWNERSHIP = _load("ownership", "release_ownership")
# Register, count and remove.
ADD_KEYS = _load("add_keys")
REGISTER = _load("now", "register")
RESTORE = _load("restore")
COUNT = _load("group", "count")
COUNT_AFTER = _load("count_after")
REAP = _load("reap")
DROP = _load("drop")
RETAIN = _load("now", "retain")
TRIM = _load("now", "group", "trim")
TAKE_TOKENS = _load("take_tokens")
RIGHTS = _load("rights")
# Key-value store.
PUT = _load("now", "bucket", "put")
GET = _load("now", "bucket", "get")
ENTRIES = _load("now", "bucket", "entries")
DELETE = _load("now", "bucket", "delete")
# Look.
PEEK = _load("group", "large", "bounded", "peek")
STREAM = _load("stream")
RANGE = _load("large", "bounded", "range")
