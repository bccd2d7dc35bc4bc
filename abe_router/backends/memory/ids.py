"""The ids by which messages are known again."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from abe_router.messages.message import Message


class Ids:
    """Ids, each under its key, and by the clock until when."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[tuple[str, str], float] = {}
        self._ends: list[tuple[float, tuple[str, str]]] = []  # heap

    def add(self, message: Message, window: float) -> bool:
        """Remember the id of a message for `window` seconds; False when it is remembered already."""
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
