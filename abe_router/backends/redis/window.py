"""How much is asked for at once over one connection.

Answers come in the order of the commands, so whatever is asked next waits for all that was asked before: acks
and renewals of leases too, while what they are about stays in memory. With a hundred busy streams that is a
hundred full answers, unless most of them wait for their turn before they are asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

#: What the answers under way may bring, in bytes; one more read than that is admitted.
SIZE = 8 * 1024 * 1024


class Window:
    """Admits reads as long as there is room, and the others in the order in which they came."""

    def __init__(self, size: int = SIZE) -> None:
        self._room = size
        self._waiting: dict[Callable[[], None], None] = {}

    def admits(self, again: Callable[[], None]) -> bool:
        """Say whether a read may be sent now; if not, `again` is called once when it may."""
        if self._room > 0:
            return True
        self._waiting[again] = None
        return False

    def sent(self, size: int, answer: asyncio.Future[object]) -> None:
        """Note that an answer of so many bytes is to come; its end, a failure too, makes room."""
        self._room -= size
        answer.add_done_callback(lambda _: self._landed(size))

    def _landed(self, size: int) -> None:
        self._room += size
        while self._room > 0 and self._waiting:
            again = next(iter(self._waiting))
            del self._waiting[again]
            again()
