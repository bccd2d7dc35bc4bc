"""How far fetching runs ahead of the handlers."""

from __future__ import annotations

#: Most deliveries asked for at once.
MAX_FETCH = 500
#: A full batch that lasted less than the first lets fetching run further ahead, one that lasted more than
#: the second less far, in seconds.
KEEPS_UP, FALLS_BEHIND = 0.05, 0.2
#: The first depth, and how many times deeper each next one is.
FIRST, GROWTH = 16, 8


class Lookahead:
    """Deliveries to hold ahead of the workers: as many as they handle in about a tenth of a second.

    Fetching ahead saves waiting for the backend, but what is held here no other process can handle. So it
    begins at nothing, grows while the handlers keep up and halves when they do not.
    """

    def __init__(self, *, allowed: bool = True) -> None:
        #: How many deliveries to hold beyond those that run.
        self.depth = 0
        #: How few of them are few enough to fetch more.
        self.low = 0
        self._allowed = allowed
        self._full_at = 0.0  # when a full batch came in, 0 when the last one was not full

    def asking(self, now: float) -> None:
        """Note that there is room for another batch; `now` is the loop's time."""
        if self._full_at and self._allowed:
            lasted = now - self._full_at
            if lasted < KEEPS_UP:
                self.depth = min(2 * MAX_FETCH, max(FIRST, self.depth * GROWTH))
            elif lasted > FALLS_BEHIND:
                self.depth //= 2
            self.low = self.depth // 2

    def fetched(self, now: float, *, full: bool) -> None:
        """Note that a batch came in, and whether there may have been more."""
        self._full_at = now if full else 0.0
