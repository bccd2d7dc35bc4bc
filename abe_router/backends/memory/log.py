"""The log of messages that all subscriptions share, and the ids that it remembers."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import islice

from abe_router.backend import RETAIN_TTL, Peeked
from abe_router.messages.message import Message
from abe_router.messages.pattern import matches

Clock = Callable[[], float]

#: Settled messages that are kept for later subscriptions when `trim` is never called.
HISTORY = 10_000
#: Messages that one call of `trim` examines, so that it does not block the event loop.
TRIM_BATCH = 10_000


class LoggedMessage:
    """A message in the log.

    `since` is when it was accepted, by the clock of the backend. `unsettled` is the number of subscriptions
    that have yet to settle it.
    """

    __slots__ = ("message", "seq", "since", "unsettled")

    def __init__(self, seq: int, message: Message, since: float) -> None:
        self.seq, self.message, self.since, self.unsettled = seq, message, since, 0


class MessageLog:
    """The messages that a subscription has yet to settle or that no subscription matches, and some others.

    `is_consumed` returns whether a subscription matches a key: messages of other keys are all kept.
    """

    def __init__(self, clock: Clock, is_consumed: Callable[[str], bool]) -> None:
        self._clock, self._is_consumed = clock, is_consumed
        self._retain: dict[tuple[str, float], float] = {}
        #: The number of the last message.
        self.last = 0
        self._kept: dict[int, LoggedMessage] = {}  # by number, in the order of acceptance
        self._settled: deque[int] = deque()

    def append(self, message: Message) -> LoggedMessage:
        """Keep the message as it is at its first attempt."""
        self.last += 1
        logged = self._kept[self.last] = LoggedMessage(self.last, with_attempt(message, 1), self._clock())
        return logged

    def begin(self, pattern: str, start: float) -> Iterator[LoggedMessage]:
        """Yield what a new subscription gets: messages whose key matches, from `start` on, in order."""
        for logged in self._kept.values():
            if matches(pattern, logged.message.key):
                if logged.message.published_at >= start:
                    yield logged
                elif not logged.unsettled:
                    self._settled.append(logged.seq)  # no subscription will settle it

    def settled(self, logged: LoggedMessage) -> None:
        """Note that one more subscription has settled the message."""
        logged.unsettled -= 1
        if not logged.unsettled:
            self._settled.append(logged.seq)
            if len(self._settled) > HISTORY:
                self._remove(self._settled.popleft())

    def trim(self, retain: Mapping[str, float]) -> int:
        """Remove settled messages that are old enough, among a limited number; return how many."""
        now = self._clock()
        noted = {**self._retain, **dict.fromkeys(retain.items(), now + RETAIN_TTL)}
        self._retain = {item: until for item, until in noted.items() if until > now}
        return sum(self._remove(self._settled.popleft()) for _ in range(min(len(self._settled), TRIM_BATCH)))

    def peek(self, pattern: str, limit: int, after: int) -> list[Peeked]:
        """Return up to `limit` messages whose key matches and whose number is greater than `after`."""
        first = max(after + 1, next(iter(self._kept), self.last + 1))
        later = (self._kept[seq] for seq in range(first, self.last + 1) if seq in self._kept)
        found = (logged for logged in later if matches(pattern, logged.message.key))
        return [Peeked(str(logged.seq), logged.message, "retained") for logged in islice(found, limit)]

    def _remove(self, seq: int) -> bool:
        """Remove a message that every subscription has settled; queue it again if it must be kept longer."""
        logged = self._kept.get(seq)
        # A later subscription may have it now. It is queued again when that one has settled it.
        if logged is None or logged.unsettled:
            return False
        key = logged.message.key
        is_young = bool(self._retain) and self._clock() - logged.since < self._retention(key)
        if is_young or not self._is_consumed(key):
            self._settled.append(seq)
            return False
        del self._kept[seq]
        return True

    def _retention(self, key: str) -> float:
        """Return how long, in seconds, a message of the key is kept."""
        return max((seconds for pattern, seconds in self._retain if matches(pattern, key)), default=0.0)


class DedupeIndex:
    """The ids that `append_once` remembers, each under its key and until its window ends."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[tuple[str, str], float] = {}
        self._ends: list[tuple[float, tuple[str, str]]] = []  # heap

    def add(self, message: Message, window: float) -> bool:
        """Remember the id of a message for `window` seconds; return False when it is remembered already."""
        now, name = self._clock(), (message.key, message.id)
        while self._ends and self._ends[0][0] <= now:
            del self._until[heapq.heappop(self._ends)[1]]
        if name in self._until:
            return False
        self._until[name] = now + window
        heapq.heappush(self._ends, (now + window, name))
        return True

    def __len__(self) -> int:
        return len(self._until)


def with_attempt(message: Message, attempt: int) -> Message:
    """Return the message with another attempt number."""
    m = message
    return Message(m.id, m.key, m.body, m.headers, m.published_at, attempt)
