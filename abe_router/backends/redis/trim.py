"""Removing what every group of a stream has settled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from hashlib import sha1

from abe_router.backend import retention
from abe_router.backends.redis.line import Line
from abe_router.backends.redis.names import Names, group_name
from abe_router.backends.redis.registry import Registry
from abe_router.backends.redis.scripts import TRIM
from abe_router.pattern import matches

#: Entries removed from a stream at a time, in one or two milliseconds.
_PIECE = 10_000


async def trim(line: Line, names: Names, registry: Registry, retain: Mapping[str, float]) -> int:
    """Trim each stream that has a subscription by one piece; return how many entries were removed.

    Groups that other programs made on a stream count as well; who reads it without a group does not.
    """
    known = await line.send("HKEYS", names.subscriptions)
    # The script compares it, and removes nothing when a subscription came or went meanwhile.
    digest = sha1(b"\n".join(known), usedforsecurity=False).hexdigest()
    subscriptions = [name.decode().rpartition("/")[::2] for name in known]
    removed = 0
    for key in await registry.keys():
        groups = [group_name(pattern, group) for pattern, group in subscriptions if matches(pattern, key)]
        if groups:
            old = math.ceil(retention(retain, key) * 1000)
            keys = names.stream(key), names.subscriptions
            removed += await line.run(TRIM, keys, (digest, old, _PIECE, *groups))
    return removed
