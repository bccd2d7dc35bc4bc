"""One partition: the backend of one hash tag, as the others of the same prefix use it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from abe_router.backends.redis.backend import RedisBackend
from abe_router.backends.redis.node import Node

R = TypeVar("R")


class Partition(RedisBackend):
    """A backend of one hash tag, whose number of tags the first one checks for all."""

    async def opened(self) -> Node:
        """Connect if necessary, and return what works on the server."""
        return await self._opened()

    async def _check(self, node: Node) -> None:
        """Accept that the keys are spread over several hash tags."""


async def all_of(calls: Sequence[Awaitable[R]]) -> Sequence[R]:
    """Await all calls; raise the first error once all have ended."""
    if len(calls) == 1:
        return [await calls[0]]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return [answer for answer in answers if not isinstance(answer, BaseException)]
