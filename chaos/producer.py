"""Publishes numbered messages at a steady pace until it is asked to end: a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

import msgspec

from abe_router import BackendError, Router
from chaos import plan
from chaos.ledger import ACCEPTED, ASKED, Ledger

#: The key under which everything is published.
KEY = "chaos.work"
#: How many publishes may be under way.
_MOST = 50


class Producer:
    """Publishes message after message from `first` on; each is noted before, and once it is accepted.

    A publish that fails is not repeated: nobody knows whether it was kept, and the next number goes on.
    """

    def __init__(self, router: Router, ledger: Ledger, *, seed: int, first: int, mix: plan.Mix) -> None:
        self._router, self._ledger = router, ledger
        self._seed, self._next, self._mix = seed, first, mix
        self._under_way = asyncio.Semaphore(_MOST)
        self.ending = asyncio.Event()

    async def run(self, rate: float, burst: int) -> None:
        """Publish so many at once and then so many a second, until it is ending."""
        loop = asyncio.get_running_loop()
        began, count = loop.time(), -burst
        async with asyncio.TaskGroup() as publishing:
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


async def main() -> None:
    """Publish until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--routes", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--burst", type=int, required=True)
    parser.add_argument("--mix", type=msgspec.json.decode, required=True)
    given = parser.parse_args()
    async with Router.from_file(given.routes, consume=False, watch=False) as router:
        producer = Producer(
            router, Ledger(given.folder / "ledger"), seed=given.seed, first=given.first, mix=given.mix
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, producer.ending.set)
        await producer.run(given.rate, given.burst)


if __name__ == "__main__":
    asyncio.run(main())
