"""Finds messages that a group was never given, because another program deleted or skipped them.

Nothing in a read shows that. So a look at all groups, every few seconds, compares how many entries each group
was given with how many there were. Deletions between two looks may escape it once the group has read on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice

from abe_router.backends.redis.connection import Connection
from abe_router.backends.redis.scripts import GAPS
from abe_router.errors import BackendError

_log = logging.getLogger(__name__)

#: Time between two looks, in seconds.
INTERVAL = 2.0
#: Streams in one call, which must be short, because the server does nothing else meanwhile.
_CHUNK = 100

#: A stream and a group on it.
Name = tuple[str, str]


class GapWatch:
    """Looks at the groups that `names` returns, and logs what they lost."""

    def __init__(self, connection: Connection, names: Callable[[], Iterable[Name]]) -> None:
        self._connection, self._names = connection, names
        self._seen: dict[Name, tuple[int, bytes, int]] = {}

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            with suppress(BackendError):  # the next fetch raises it
                await self.look()
            await asyncio.sleep(INTERVAL)

    async def look(self) -> None:
        """Look once."""
        left = iter(dict.fromkeys(self._names()))
        seen: dict[Name, tuple[int, bytes, int]] = {}
        while chunk := tuple(islice(left, _CHUNK)):
            args = [group for _, group in chunk]
            answers = await self._connection.run(GAPS, [stream for stream, _ in chunk], args)
            for name, (missing, given, read) in zip(chunk, answers, strict=True):
                seen[name] = missing, given, read
                self._compare(name, missing, given, read)
        self._seen = seen

    def _compare(self, name: Name, missing: int, given: bytes, read: int) -> None:
        before, given_before, read_before = self._seen.get(name, (0, b"", -1))
        lost = missing - before if given == given_before else missing
        if lost > 0:
            _log.warning(
                "messages of stream `%s` were deleted before group `%s` was given them: %d", *name, lost
            )
        # A group that was lost and created again begins at 0-0.
        if read == -1 and read_before >= 0 and given != b"0-0":
            _log.warning(
                "another program set the position of group `%s` of stream `%s`, from %s to %s, with XGROUP "
                "SETID: messages in between are not delivered, or come again",
                name[1],
                name[0],
                given_before.decode(),
                given.decode(),
            )
