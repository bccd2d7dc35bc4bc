"""Tells of groups that the server lost, and that begin anew: often all of them at once."""

from __future__ import annotations

import asyncio
import logging

_log = logging.getLogger(__name__)

#: How long, in seconds, further losses are gathered before they are told of in one line.
_GATHER = 1.0


class Losses:
    """Tells of the first loss at once, and of those that follow it within a second in one line."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._more = 0
        self._timer: asyncio.TimerHandle | None = None

    def note(self, stream: str, group: str) -> None:
        """Tell of a group that was made anew, now or together with others."""
        if self._timer:
            self._more += 1
            return
        _log.warning(
            "the group `%s` of stream `%s` was gone and begins anew: "
            "what it had not settled is lost, or comes again if the stream is still there",
            group,
            stream,
        )
        self._timer = self._loop.call_later(_GATHER, self.tell)

    def tell(self) -> None:
        """Tell of what was gathered."""
        if self._timer:
            self._timer.cancel()
        self._timer = None
        if self._more:
            _log.warning("%d more groups were gone and begin anew", self._more)
            self._more = 0
