"""The log of messages that all groups share."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import count

from abe_router.backend import RETAIN_TTL
from abe_router.messages.message import Message
from abe_router.messages.pattern import matches

#: Settled messages kept for groups that come later when nobody trims.
HISTORY = 10_000
#: Messages that one call of `trim` looks at, so that it holds nobody up.
LOOKED_AT = 10_000


class Kept:
    """A message in the log since `since`; `unsettled` is the number of groups that have yet to settle it."""

    __slots__ = ("message", "seq", "since", "unsettled")

    def __init__(self, seq: int, message: Message, since: float) -> None:
        self.seq, self.message, self.since, self.unsettled = seq, message, since, 0


class Log:
    """Every message that some group has yet to settle or that no group has got, and some others.

    `is_consumed` says whether any group gets the messages of a key: without one they are all kept.
    """

    def __init__(self, clock: Callable[[], float], is_consumed: Callable[[str], bool]) -> None:
        self._clock, self._is_consumed = clock, is_consumed
        self._retain: dict[tuple[str, float], float] = {}
        self._seq = count(1)
        self._kept: dict[int, Kept] = {}
        self._done: deque[int] = deque()

    def append(self, message: Message) -> Kept:
        """Keep the message, as it looks at its first attempt."""
        kept = Kept(next(self._seq), with_attempt(message, 1), self._clock())
        self._kept[kept.seq] = kept
        return kept

    def begin(self, pattern: str, start: float) -> Iterator[Kept]:
        """Yield what a new group gets: the keys that match, from the time `start` on, in order."""
        for kept in self._kept.values():
            if matches(pattern, kept.message.key):
                if kept.message.published_at >= start:
                    yield kept
                elif not kept.unsettled:
                    self._done.append(kept.seq)  # nobody will settle it

    def settled(self, kept: Kept) -> None:
        """Note that one group is done with the message."""
        kept.unsettled -= 1
        if not kept.unsettled:
            self._done.append(kept.seq)
            if len(self._done) > HISTORY:
                self._let_go(self._done.popleft())

    def trim(self, retain: Mapping[str, float]) -> int:
        """Forget what is settled and old enough, among a few of the messages; return how many."""
        now = self._clock()
        noted = {**self._retain, **dict.fromkeys(retain.items(), now + RETAIN_TTL)}
        self._retain = {item: until for item, until in noted.items() if until > now}
        return sum(self._let_go(self._done.popleft()) for _ in range(min(len(self._done), LOOKED_AT)))

    def _let_go(self, seq: int) -> bool:
        """Forget a message if every group is done with it; come back to it if it has to be kept longer."""
        kept = self._kept.get(seq)
        # A group that came later may hold it again; it is noted here once more when that one is done.
        if kept is None or kept.unsettled:
            return False
        key = kept.message.key
        is_young = bool(self._retain) and self._clock() - kept.since < self._retention(key)
        if is_young or not self._is_consumed(key):
            self._done.append(seq)
            return False
        del self._kept[seq]
        return True

    def _retention(self, key: str) -> float:
        """Return how long, in seconds, a message of the key is kept."""
        return max((seconds for pattern, seconds in self._retain if matches(pattern, key)), default=0.0)


def with_attempt(message: Message, attempt: int) -> Message:
    """Return the message with another attempt number."""
    m = message
    return Message(m.id, m.key, m.body, m.headers, m.published_at, attempt)
