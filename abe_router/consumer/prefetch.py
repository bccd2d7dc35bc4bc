"""How many deliveries a consumer holds ahead of its slots."""

from __future__ import annotations

#: Most deliveries asked for at once.
MAX_FETCH = 500
#: A full fetch makes the prefetch deeper if its handlers took less than the first, in seconds, and shallower
#: if they took more than the second.
KEEPS_UP, FALLS_BEHIND = 0.05, 0.2
#: The same for the time until there was room again, which in a busy process is mostly that of other routes.
#: What all routes hold ahead is therefore handled in about a second.
QUICK_ROUND, SLOW_ROUND = 0.25, 1.0
#: The first depth, and the factor to each next one.
FIRST_DEPTH, GROWTH = 16, 8
#: The largest depth in a busy process. A larger read is hardly cheaper, and all that is read waits in memory.
ENOUGH = 128


class Prefetch:
    """How many deliveries to hold ahead of the slots: as many as they handle in about a tenth of a second.

    A prefetch saves waiting for the backend, but no other process can handle what is held here. So it begins
    at nothing, grows while the handlers keep up, and is halved when they do not. The time of the handlers
    counts, not the wait for the event loop: a read costs the same for one message as for a hundred, so many
    busy routes must not end up with small ones.
    """

    def __init__(self, *, allowed: bool = True) -> None:
        #: How many deliveries to hold beyond those that run.
        self.depth = 0
        #: The low-water mark: more are fetched when no more than these are in the buffer.
        self.low_water = 0
        self._allowed = allowed
        self._full_at = 0.0  # when the last fetch came in full; 0 when it did not

    def allow(self, allowed: bool) -> None:
        """Set whether anything may be held ahead; begin at nothing again."""
        self._allowed, self._full_at = allowed, 0.0
        self.depth = self.low_water = 0

    def asking(self, now: float, handling: float | None = None) -> None:
        """Note that there is room for another fetch; `now` is the loop's time.

        `handling` is how long the handlers of the last one took, in seconds; None if that is not known.
        """
        if not self._full_at or not self._allowed:
            return
        round_ = now - self._full_at
        if handling is None:
            handling = round_
        if handling < KEEPS_UP and round_ < QUICK_ROUND:
            # Handlers that are quicker still take two steps at once.
            steps = 2 if handling * GROWTH < KEEPS_UP else 1
            grown = max(FIRST_DEPTH * GROWTH ** (steps - 1), self.depth * GROWTH**steps)
            most = 2 * MAX_FETCH if round_ < KEEPS_UP else ENOUGH
            self.depth = max(self.depth, min(most, grown))
        elif handling > FALLS_BEHIND or round_ > SLOW_ROUND:
            self.depth //= 2
        self.low_water = self.depth // 2

    def fetched(self, now: float, *, full: bool) -> None:
        """Note that a fetch came in, and whether there may have been more."""
        self._full_at = now if full else 0.0
