"""Publishes numbered messages at a steady pace until it is asked to end: a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path

import msgspec

from abe_router import BackendError, Router
from chaos import plan
from chaos.ledger import ACCEPTED, ASKED, Ledger
from chaos.routes_file import KEY, STEP

#: How long a ordering_key waits between two steps, and before it publishes one again, in seconds.
STEP_INTERVAL, STEP_RETRY = 0.1, 0.05
#: How many publishes may be under way.
_MAX_CONCURRENT = 50


class Producer:
    """Publishes message after message from `first` on; each is noted before, and once it is accepted.

    A publish that fails is not repeated: nobody knows whether it was kept, and the next number goes on.
    Steps are repeated until they are accepted, for their key keeps each id once; `steps` has the first of
    each ordering_key.
    """

    def __init__(
        self, router: Router, ledger: Ledger, *, seed: int, first: int, steps: Sequence[int], mix: plan.Mix
    ) -> None:
        self._router, self._ledger, self._steps = router, ledger, steps
        self._seed, self._next, self._mix = seed, first, mix
        self._under_way = asyncio.Semaphore(_MAX_CONCURRENT)
        self.ending = asyncio.Event()

    async def run(self, rate: float, burst: int) -> None:
        """Publish so many at once and then so many a second, until it is ending."""
        loop = asyncio.get_running_loop()
        began, count = loop.time(), -burst
        async with asyncio.TaskGroup() as publishing:
            for first in self._steps:
                publishing.create_task(self._publish_steps(first))
            while not self.ending.is_set():
                await self._under_way.acquire()
                publishing.create_task(self._publish(self._next))
                self._next, count = self._next + 1, count + 1
                if (wait := began + max(0, count) / rate - loop.time()) > 0:
                    await asyncio.sleep(wait)

    async def _publish(self, number: int) -> None:
        payload, id = plan.payload(self._seed, number, self._mix), str(number)
        self._ledger.note(ASKED, number, id)
        try:
            await self._router.publish(KEY, payload, id=id)
            self._ledger.note(ACCEPTED, number, id)
        except BackendError:
            await asyncio.sleep(0.1)
        finally:
            self._under_way.release()

    async def _publish_steps(self, number: int) -> None:
        """Publish the steps of a ordering_key, one after the other."""
        while not self.ending.is_set():
            self._ledger.note(ASKED, number, str(number))
            while not (accepted := await self._publish_step(number)) and not self.ending.is_set():
                await asyncio.sleep(STEP_RETRY)
            if accepted:
                self._ledger.note(ACCEPTED, number, str(number))
            number += plan.ORDERING_KEYS
            await asyncio.sleep(STEP_INTERVAL)

    async def _publish_step(self, number: int) -> bool:
        try:
            await self._router.publish(STEP, plan.payload(self._seed, number, self._mix))
        except BackendError:
            return False
        return True


async def main() -> None:
    """Publish until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--routes", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--steps", type=int, nargs="*", required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--burst", type=int, required=True)
    parser.add_argument("--mix", type=msgspec.json.decode, required=True)
    given = parser.parse_args()
    async with Router.from_file(given.routes, consume=False, watch=False) as router:
        producer = Producer(
            router,
            Ledger(given.folder / "ledger"),
            seed=given.seed,
            first=given.first,
            steps=given.steps,
            mix=given.mix,
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, producer.ending.set)
        await producer.run(given.rate, given.burst)


if __name__ == "__main__":
    asyncio.run(main())
