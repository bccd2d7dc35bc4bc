"""The scripts that run inside Redis: what must happen whole or not at all.

They are the files in `lua`. Redis undoes nothing when a script fails half-way, so each writes what must
not be lost before it removes; times are the server's; and all keys come in KEYS. What settles one stream
touches that stream's slot alone; what emits, trims, or serves many streams in one call does not, so it takes
a server that is not part of a cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path

_FOLDER = Path(__file__).parent / "lua"


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and the hash by which the server remembers it."""

    text: str
    sha: str


def _load(*files: str) -> Script:
    text = "".join((_FOLDER / f"{file}.lua").read_text("utf-8") for file in files)
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


# Appending and finding.
APPEND = _load("append")
APPEND_ONCE = _load("now", "once", "append_once")
NOTE = _load("note")
ENTER = _load("now", "enter")
# Taking.
CLAIM = _load("now", "idle", "take", "claim")
ADOPT = _load("take", "adopt")
LOOK = _load("now", "idle", "look")
# The place of an exclusive handle.
HOLD = _load("now", "idle", "take", "place", "hold")
KEEP = _load("now", "place", "keep")
LEAVE = _load("place", "leave")
# Settling.
ACK = _load("fence", "ack")
EMIT = _load("now", "fence", "once", "emit")
EXTEND = _load("fence", "extend")
RELEASE = _load("now", "fence", "release")
DELAY = _load("now", "fence", "failed", "delay")
POSTPONE = _load("now", "fence", "failed", "postpone")
BURY = _load("fence", "bury")
# Looking after.
RESTORE = _load("restore")
REAP = _load("reap")
DROP = _load("drop")
RETAIN = _load("now", "retain")
TRIM = _load("now", "trim")
COUNT = _load("count")
MEASURE = _load("measure")
RIGHTS = _load("rights")
REPLAY = _load("replay")
PERMIT = _load("permit")
ANNOUNCE = _load("now", "announce")
LIVING = _load("now", "living")
