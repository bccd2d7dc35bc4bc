"""The time limit of appends, for providers: one timer looks at all that is under way, and fails what is late.

A timer for each message would take a tenth of the time of a publish.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Generic, TypeVar

from abe_router.errors import PublishTimeout

#: How long an append may take unless the URL of the backend or its caller says otherwise, in seconds.
PUBLISH_TIMEOUT = 5.0
#: Interval of the looks, in seconds. An append ends up to two of them after its limit.
LOOK_EVERY = 0.2

T = TypeVar("T")


class TimeLimit(Generic[T]):
    """Calls `expire` with the appends that have been under way for `seconds`; `pending` returns all of them.

    States: off, while nothing is under way; on, from `watch` until a look finds nothing, and `busy` says that
    no append joins without a call of `watch`.
    """

    def __init__(
        self,
        seconds: float,
        pending: Callable[[], Iterable[T]],
        expire: Callable[[Collection[T]], None],
        *,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._seconds, self._pending, self._expire, self._busy = seconds, pending, expire, busy
        #: When each append is late, by the clock of the event loop.
        self._until: dict[T, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self) -> None:
        """Look at what is under way from now on. Call it once for many appends."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # that of an earlier one may be closed
            self._loop = loop
            loop.call_later(min(LOOK_EVERY, self._seconds), self._look, loop)

    def set(self, append: T, until: float) -> None:
        """Set when an append is late, by the clock of the event loop, in place of the limit of all."""
        self._until[append] = until

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop:
            return
        known, now = self._until, loop.time()
        late_at = now + self._seconds
        self._until = {append: known.get(append, late_at) for append in self._pending()}
        if late := [append for append, until in self._until.items() if until <= now]:
            self._expire(late)
        if self._until or self._busy():
            loop.call_later(LOOK_EVERY, self._look, loop)
        else:
            self._loop = None


def publish_timeout(what: str, *, sent: bool) -> PublishTimeout:
    """Return the error of an append that `what` did not answer in time."""
    if sent:
        end = "the message may have been accepted: publish it again with its id, under `dedupe`"
    else:
        end = "the message was not sent, so it can be published again"
    return PublishTimeout(f"{what} has not answered within the time limit of the publish; {end}", sent=sent)


def read_timeout(text: str | None) -> float:
    """Return the option `timeout` of a URL, in seconds; raise ValueError."""
    try:
        seconds = PUBLISH_TIMEOUT if text is None else float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise ValueError("option `timeout` must be a number of seconds above 0")
    return seconds
