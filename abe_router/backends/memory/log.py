"""The log of messages that all groups share."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import count

from abe_router.message import Message
from abe_router.pattern import matches

#: Messages kept for groups that come later, of those that every group has settled.
HISTORY = 10_000


class Kept:
    """A message in the log; `unsettled` is the number of groups that have yet to settle it."""

    __slots__ = ("message", "seq", "unsettled")

    def __init__(self, seq: int, message: Message) -> None:
        self.seq, self.message, self.unsettled = seq, message, 0


class Log:
    """Every message that some group has yet to settle or that no group has got, and the last few others."""

    def __init__(self) -> None:
        self._seq = count(1)
        self._kept: dict[int, Kept] = {}
        self._done: deque[int] = deque()

    def append(self, message: Message) -> Kept:
        """Keep the message, as it looks at its first attempt."""
        kept = Kept(next(self._seq), with_attempt(message, 1))
        self._kept[kept.seq] = kept
        return kept

    def since(self, pattern: str, start: float) -> Iterator[Kept]:
        """Yield what is kept of the keys that match, from the time `start` on, in order."""
        for kept in self._kept.values():
            if kept.message.published_at >= start and matches(pattern, kept.message.key):
                yield kept

    def settled(self, kept: Kept) -> None:
        """Note that one group is done with the message."""
        kept.unsettled -= 1
        if kept.unsettled:
            return
        self._done.append(kept.seq)
        if len(self._done) > HISTORY:
            oldest = self._kept.get(self._done.popleft())
            # A group that came later may hold it again; it is noted here once more when that one is done.
            if oldest and not oldest.unsettled:
                del self._kept[oldest.seq]


def with_attempt(message: Message, attempt: int) -> Message:
    """Return the message with another attempt number."""
    m = message
    return Message(m.id, m.key, m.body, m.headers, m.published_at, attempt)
