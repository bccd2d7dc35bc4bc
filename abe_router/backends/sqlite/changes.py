"""What transactions changed, and what was counted in one: values that outlive the transaction."""

from __future__ import annotations

import time
from typing import NamedTuple


class Changes:
    """What a transaction made available, so that only the fetches it concerns are tried again."""

    def __init__(self) -> None:
        #: The keys that got messages.
        self.key_ids: set[int] = set()
        #: By subscription, when a delivery falls due, in seconds since the epoch.
        self.due_at: dict[int, float] = {}
        #: Anything may have changed: every fetch is tried.
        self.everything = False

    def add_due(self, sid: int, due_at: float) -> None:
        """Note that a delivery of the subscription falls due, in seconds since the epoch."""
        self.due_at[sid] = min(due_at, self.due_at.get(sid, due_at))

    @property
    def is_available(self) -> bool:
        """Whether something can be claimed at once."""
        if self.key_ids or self.everything:
            return True
        return bool(self.due_at) and min(self.due_at.values()) <= time.time()

    def clear(self) -> None:
        """Forget all changes."""
        self.key_ids.clear()
        self.due_at.clear()
        self.everything = False


class BacklogCount(NamedTuple):
    """How many messages a subscription had not claimed when `end` was the last message of the log."""

    end: int
    claimed: int
    unclaimed: int
