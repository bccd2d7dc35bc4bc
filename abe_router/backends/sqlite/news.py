"""What a transaction made available, so that only the fetches it concerns are tried again."""

from __future__ import annotations


class News:
    """New messages by the numbers of their keys, and by subscription when a delivery falls due."""

    def __init__(self) -> None:
        self.kids: set[int] = set()
        self.due: dict[int, float] = {}
        #: Anything may have changed: try every fetch.
        self.all = False

    def __bool__(self) -> bool:
        return bool(self.kids or self.due or self.all)

    def falls_due(self, sid: int, due: float) -> None:
        """Note that a delivery of the subscription falls due, in seconds since the epoch."""
        self.due[sid] = min(due, self.due.get(sid, due))

    def clear(self) -> None:
        """Forget it all."""
        self.kids.clear()
        self.due.clear()
        self.all = False
