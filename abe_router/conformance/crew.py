"""Handles that work side by side, as the consumers of several processes do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from abe_router.backend import Delivery, Subscription
from abe_router.conformance.store import ack


class Crew:
    """Fetches and settles with every handle at once, from `async with` on to its end."""

    def __init__(self, handles: Sequence[Subscription], *, limit: int = 10) -> None:
        self._handles, self._limit = handles, limit
        self._stopped = False
        self._news = asyncio.Event()
        self._working: list[asyncio.Task[None]] = []
        #: What was fetched and settled as handled so far.
        self.handled: list[Delivery] = []

    async def __aenter__(self) -> Self:
        self._working = [asyncio.create_task(self._work(handle)) for handle in self._handles]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        for handle in self._handles:
            handle.interrupt()
        await asyncio.gather(*self._working)

    async def has_handled(self, count: int, *, within: float = 15.0) -> None:
        """Wait until `count` deliveries are handled; fail when they are not within that many seconds."""
        try:
            async with asyncio.timeout(within):
                while len(self.handled) < count and not any(task.done() for task in self._working):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{len(self.handled)} of {count} were handled in {within:.1f} s") from None

    async def _work(self, handle: Subscription) -> None:
        try:
            while not self._stopped:
                fetched = await handle.fetch(self._limit, 5.0)
                await ack(handle, fetched)
                self.handled += fetched
                self._news.set()
        finally:
            self._news.set()
