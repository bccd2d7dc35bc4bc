"""What becomes of replayed messages: which died again, and which still wait for their end."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from abe_router.backend import Backend, SubscriptionName
from abe_router.operations.dead_letters import read_dead_letters
from abe_router.operations.fingerprint import fingerprint

#: Messages of one peek.
PAGE = 500


class DeathWatch:
    """Counts the replayed messages that died again. It reads each new dead letter of the route once.

    `seen` is the newest dead letter that was looked at.
    """

    def __init__(self, backend: Backend, route: SubscriptionName, seen: str) -> None:
        self._backend, self._route = backend, route
        self.seen = self._before = seen
        self._known: set[str] = set()
        #: The fingerprints of the dead letters that were replayed, by id.
        self._expected: dict[str, str] = {}

    def expect(self, replayed: Iterable[tuple[str, str]]) -> None:
        """Watch these dead letters too, each an id and a fingerprint."""
        self._expected.update(replayed)

    async def look(self) -> tuple[int, int]:
        """Return how many messages died again since the last look: by the same fault, by another one."""
        same = other = 0
        newest, found = self.seen, set[str]()
        # It begins where the look before ended. Of two dead letters of one millisecond, the later one may
        # have the smaller id, if they are of two keys.
        async for dead_letter in read_dead_letters(self._backend, self._route, after=self._before):
            newest = dead_letter.id
            found.add(newest)
            former = self._expected.get(dead_letter.former)
            if former is None or newest in self._known:
                continue
            if fingerprint(dead_letter.reason) == former:
                same += 1
            else:
                other += 1
        self._before, self.seen, self._known = self.seen, newest, found
        return same, other


class UnsettledMessages:
    """Finds those of some messages that are not settled yet, by peeking.

    A look costs as much as the messages that wait before and between them, so callers pause between looks.
    """

    def __init__(self, backend: Backend, route: SubscriptionName, ids: Collection[str]) -> None:
        self._backend, self._route = backend, route
        self._ids = set(ids)
        #: The cursor before the first one. A message keeps its position until it is settled.
        self._begin = ""

    async def look(self) -> int:
        """Return how many are not settled. What was settled once is not looked for again."""
        found = set[str]()
        after = before = self._begin
        while True:
            page = await self._backend.peek(*self._route, limit=PAGE, after=after)
            for peeked in page:
                if peeked.message.id in self._ids:
                    if not found:
                        self._begin = before
                    found.add(peeked.message.id)
                before = peeked.cursor
            if len(page) < PAGE or len(found) == len(self._ids):
                self._ids = found
                return len(found)
            after = page[-1].cursor
