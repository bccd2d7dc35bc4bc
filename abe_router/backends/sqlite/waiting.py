"""The fetches that found nothing, and which of them are worth another try."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import TypeVar

from abe_router.backends.sqlite.keys import Keys
from abe_router.backends.sqlite.news import News
from abe_router.backends.sqlite.operation import Fetch
from abe_router.messages.pattern import is_wild, matches

T = TypeVar("T")


class Waiting:
    """Keeps the waiting fetches; times are on the monotonic clock."""

    def __init__(self) -> None:
        self._by_pattern: dict[str, set[Fetch]] = {}
        self._by_subscription: dict[int, set[Fetch]] = {}
        self._wild: set[str] = set()
        #: None is worth a look before; an early bound, put right when it is reached.
        self.next = math.inf

    def __bool__(self) -> bool:
        return bool(self._by_pattern)

    def __iter__(self) -> Iterator[Fetch]:
        return (fetch for fetches in self._by_pattern.values() for fetch in fetches)

    def add(self, fetch: Fetch) -> None:
        """Let the fetch wait until it is worth another try."""
        pattern = fetch.group.pattern
        self._by_pattern.setdefault(pattern, set()).add(fetch)
        self._by_subscription.setdefault(fetch.sid, set()).add(fetch)
        if is_wild(pattern):
            self._wild.add(pattern)
        self.next = min(self.next, fetch.again)

    def remove(self, fetch: Fetch) -> None:
        """Forget the fetch; without effect when it is not waiting."""
        pattern = fetch.group.pattern
        if _discard(self._by_pattern, pattern, fetch):
            self._wild.discard(pattern)
        _discard(self._by_subscription, fetch.sid, fetch)

    def hear(self, news: News, keys: Keys) -> list[Fetch]:
        """Return the fetches that the news concern now; note what falls due later."""
        if news.all:
            return list(self)
        found: set[Fetch] = set()
        for kid in news.kids:
            key = keys.names.get(kid, "")  # none: it belongs to another prefix
            found.update(self._by_pattern.get(key, ()))
            for pattern in self._wild:
                if matches(pattern, key):
                    found.update(self._by_pattern[pattern])
        now = time.monotonic()
        for sid, due in news.due.items():
            for fetch in self._by_subscription.get(sid, ()):
                fetch.falls_due(due)
                self.next = min(self.next, fetch.again)
                if fetch.again <= now:
                    found.add(fetch)
        return list(found)

    def ripe(self) -> list[Fetch]:
        """Return the fetches whose time has come."""
        now = time.monotonic()
        if now < self.next:
            return []
        found = [fetch for fetch in self if fetch.again <= now]
        self.next = min((fetch.again for fetch in self if fetch.again > now), default=math.inf)
        return found

    def compare(self, due: Mapping[int, float | None]) -> list[Fetch]:
        """Note when each subscription falls due; return the fetches that are due or have lost theirs."""
        now = time.monotonic()
        found = []
        for fetch in self:
            if fetch.sid not in due:
                found.append(fetch)
            elif (at := due[fetch.sid]) is not None:
                fetch.falls_due(at)
                self.next = min(self.next, fetch.again)
                if fetch.again <= now:
                    found.append(fetch)
        return found


def _discard(index: dict[T, set[Fetch]], name: T, fetch: Fetch) -> bool:
    """Take the fetch out of the index; say whether nothing is left under its name."""
    fetches = index.get(name)
    if fetches is not None:
        fetches.discard(fetch)
        if fetches:
            return False
        del index[name]
    return True
