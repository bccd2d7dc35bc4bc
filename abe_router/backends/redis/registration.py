"""Keeps the subscriptions of this process registered, although the server may lose the hash that lists them.

`DEL` and eviction take one key and leave the others. Without the hash the messages still arrive, but nothing
is trimmed, and `status` and `dead list` show no subscription.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from itertools import islice

from abe_router.backends.redis.connection import Connection
from abe_router.backends.redis.names import Names, subscription_name
from abe_router.backends.redis.registry import Registry
from abe_router.backends.redis.scripts import RESTORE
from abe_router.errors import BackendError
from abe_router.messages.pattern import is_wild

_log = logging.getLogger(__name__)

#: Time between two checks, in seconds.
INTERVAL = 2.0
#: Subscriptions in one call, which must be short, because the server does nothing else meanwhile.
_CHUNK = 500
#: Most subscriptions that the log line names.
_NAMED = 3


class Registrations:
    """The subscriptions of this process: where each starts, in milliseconds since the epoch."""

    def __init__(self, connection: Connection, names: Names, registry: Registry) -> None:
        self._connection, self._names, self._registry = connection, names, registry
        self._starts: dict[tuple[str, str], int] = {}

    def add(self, pattern: str, group: str, start: int) -> None:
        """Keep a subscription registered."""
        self._starts[pattern, group] = start

    def remove(self, pattern: str, group: str) -> None:
        """Keep a subscription registered no longer: the last handle on it was closed."""
        self._starts.pop((pattern, group), None)

    async def run(self) -> None:
        """Check again and again, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                await self.check()
            except BackendError:
                continue  # the next fetch raises it

    async def check(self) -> None:
        """Register again what the server lost, with the keys that these subscriptions name."""
        restored: list[str] = []
        keys = (self._names.subscriptions, self._names.dropped)
        for starts in _chunks(self._starts):
            named = [subscription_name(*subscription) for subscription in starts]
            args = [arg for pair in zip(named, starts.values(), strict=True) for arg in pair]
            restored += [named[at] for at in await self._connection.run(RESTORE, keys, args)]
            if exact := [pattern for pattern, _ in starts if not is_wild(pattern)]:
                await self._registry.add_keys(exact)
        if restored:
            more = f" and {len(restored) - _NAMED} more" if len(restored) > _NAMED else ""
            _log.warning(
                "the server lost the registration of %s%s, which is made again; "
                "nothing was trimmed meanwhile, and no message was lost by it",
                ", ".join(f"`{name}`" for name in restored[:_NAMED]),
                more,
            )


def _chunks(starts: Mapping[tuple[str, str], int]) -> Iterator[dict[tuple[str, str], int]]:
    left = iter(tuple(starts.items()))
    while chunk := dict(islice(left, _CHUNK)):
        yield chunk
