"""A process that publishes numbered messages at a steady rate until SIGTERM."""

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

#: Time between two steps of an ordering key, and before a step is published again, in seconds.
STEP_INTERVAL, STEP_RETRY = 0.1, 0.05
#: Highest number of concurrent publish calls.
_MAX_CONCURRENT = 50


class Producer:
    """Publishes messages numbered from `first` on; records each one before the call and after its acceptance.

    A failed publish is not repeated, because its outcome is unknown. The next number follows.
    Steps are repeated until they are accepted, for their key keeps each id once; `steps` has the first of
    each ordering key.
    """

    def __init__(
        self, router: Router, ledger: Ledger, *, seed: int, first: int, steps: Sequence[int], mix: plan.Mix
    ) -> None:
        self._router, self._ledger, self._steps = router, ledger, steps
        self._seed, self._next, self._mix = seed, first, mix
        self._slots = asyncio.Semaphore(_MAX_CONCURRENT)
        self.ending = asyncio.Event()

    async def run(self, rate: float, burst: int) -> None:
        """Publish `burst` messages at once and then `rate` per second, until `ending` is set."""
        loop = asyncio.get_running_loop()
        began, count = loop.time(), -burst
        async with asyncio.TaskGroup() as publishing:
            for first in self._steps:
                publishing.create_task(self._publish_steps(first))
            while not self.ending.is_set():
                await self._slots.acquire()
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
            self._slots.release()

    async def _publish_steps(self, number: int) -> None:
        """Publish the steps of an ordering key, one after another."""
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
