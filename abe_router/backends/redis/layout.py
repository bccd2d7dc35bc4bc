"""How the keys of a prefix are spread over hash tags, which `slots` in the URL says.

The number is recorded at the first tag, the *home*, which is the one tag of a file without `slots`. With
another number each key would be looked for under another tag, so it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from abe_router.backends.redis.finder import slot_of
from abe_router.backends.redis.key_value import KeyValueStore
from abe_router.backends.redis.node import Node
from abe_router.errors import BackendError

#: Where the number of tags is recorded in the key-value store.
_BUCKET, _NAME = "layout", "slots"


class Layout:
    """So many hash tags, of which the first is `home`."""

    def __init__(self, count: int, home: str) -> None:
        self.count = count
        #: The hash tags, in the order of their numbers.
        self.tags: Sequence[str] = (home, *(f"{home}:{number}" for number in range(1, count)))

    def number(self, key: str) -> int:
        """Return the number of the tag that has a key: its CLUSTER KEYSLOT modulo the count."""
        return _number(key, self.count)

    async def check(self, home: Node) -> bool:
        """Return whether this number of tags is recorded. Change nothing.

        Raise BackendError if it is another one, or if data stands under one tag and the number is greater.
        """
        recorded = await self._recorded(home)
        if recorded is None and (self.count == 1 or not await self._has_data(home)):
            return False
        if recorded != self.count:
            raise self._refusal(recorded)
        return True

    async def record(self, home: Node) -> None:
        """Record the number of tags, unless it is recorded. Raise as `check` does."""
        if not await self.check(home):
            store = KeyValueStore(home.connection, home.names)
            await store.put(_BUCKET, _NAME, b"%d" % self.count, expected=0)
            await self.check(home)  # another process may have been first

    @staticmethod
    async def _recorded(home: Node) -> int | None:
        entry = await KeyValueStore(home.connection, home.names).get(_BUCKET, _NAME)
        return int(entry.value) if entry and entry.value.isdigit() else None

    @staticmethod
    async def _has_data(home: Node) -> bool:
        return bool(await home.registry.keys() or await home.registry.subscriptions())

    def _refusal(self, recorded: int | None) -> BackendError:
        here = f"`slots={self.count}`" if self.count > 1 else "no `slots`"
        there = f"`slots={recorded}`" if recorded and recorded > 1 else "no `slots`"
        return BackendError(
            f"the URL has {here}, and the data under the hash tag `{self.tags[0]}` was stored with {there}: "
            f"give the URL {there}, or the file another prefix"
        )


@lru_cache(maxsize=65_536)
def _number(key: str, count: int) -> int:
    return slot_of(key) % count
