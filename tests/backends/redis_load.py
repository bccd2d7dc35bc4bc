"""Publishers and a consumer that run while servers fail, and what became of each message."""

from __future__ import annotations

import asyncio
from collections import Counter

from abe_router.backend import ACKED, Acked
from abe_router.backends import make_backend
from abe_router.errors import BackendError, BackendUnavailable
from abe_router.messages.message import new_message
from tests.limits import HANG

KEYS = [f"orders.k{number}" for number in range(4)]
GROUP = "billing"
_PUBLISHERS = 6
#: How long each part of the end may take, in seconds.
_PATIENCE = 25.0


class Load:
    """Publishes in batches of several keys and handles what comes; a context manager.

    When it ends the publishers stop, and all that is left is handled. With `emits`, each handled
    message emits one to another key.
    """

    def __init__(self, url, prefix, *, lease=30.0, emits=False):
        self._url, self._prefix, self._lease, self._emits = url, prefix, lease, emits
        #: How often each message was emitted, by the id of its cause.
        self.emitted = Counter[str]()
        #: The messages whose publish returned, those that were fetched, and how often each message was acked.
        #: An ack that is repeated because its answer was lost is refused if the server had carried it out.
        self.accepted, self.handled, self.acked = set[str](), set[str](), Counter[str]()
        #: The errors of publishes, and of everything that the consumer did.
        self.refused, self.outages = list[BackendError](), list[BackendError]()
        self._number = 0
        self._fetched = []
        self._over = False

    async def __aenter__(self):
        self.backend = make_backend(self._url, prefix=self._prefix)
        self.publishing = make_backend(self._url, prefix=self._prefix)
        self._subscription = await self.backend.subscribe("orders.*", GROUP, lease=self._lease)
        self._running = [asyncio.create_task(self._publish()) for _ in range(_PUBLISHERS)]
        self._consuming = asyncio.create_task(self._consume())
        return self

    async def __aexit__(self, *_):
        self._over = True
        await self._ended("publishers", asyncio.gather(*self._running))
        await self._ended("the consumer", self._consuming)
        if self._emits:
            await self._ended("the reader of what was emitted", self._follow())
        await self._ended("the backend that consumes", self.backend.close())
        await self._ended("the backend that publishes", self.publishing.close())

    async def _ended(self, what, ending):
        """Wait for the end of something; fail with the state of all if it does not come."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await ending
        except TimeoutError:
            counts = f"{len(self.accepted)} accepted, {len(self.handled)} handled, {len(self.acked)} acked"
            last = f"refused {self.refused[-3:]}, outages {self.outages[-3:]}, fetched last {self._fetched}"
            where = [str(each.get_stack(limit=3)) for each in asyncio.all_tasks()]
            raise AssertionError(f"{what} did not end: {counts}; {last}\n" + "\n".join(where)) from None

    async def _follow(self):
        """Read what was emitted, until nothing more comes."""
        cursor, quiet = "", 0
        while quiet < 5:
            page = await self.backend.peek("done.*", None, limit=1000, after=cursor)
            self.emitted.update(each.message.headers["cause"] for each in page)
            cursor, quiet = page[-1].cursor if page else cursor, 0 if page else quiet + 1
            await asyncio.sleep(0 if page else 0.1)

    def _outcome(self, delivery):
        if not self._emits:
            return ACKED
        message = delivery.message
        key = message.key.replace("orders", "done")
        return Acked((new_message(key, b"1", headers={"cause": message.id}),))

    async def more(self, count=200):
        """Wait until so many more messages were acked."""
        least = len(self.acked) + count
        async with asyncio.timeout(HANG):
            while len(self.acked) < least:
                await asyncio.sleep(0.01)

    @property
    def lost(self):
        """The accepted messages that were never handled."""
        return self.accepted - self.handled

    @property
    def doubled(self):
        """The messages that were acked more than once."""
        return [message for message, count in self.acked.items() if count > 1]

    async def _publish(self):
        while not self._over:
            self._number += 1
            messages = [new_message(key, b"1", id=f"{self._number}/{key}") for key in KEYS]
            if self._number % 3 == 0:  # large ones go without a script
                messages = [new_message(KEYS[0], b'"' + b"x" * 4000 + b'"', id=f"{self._number}/large")]
            try:
                await self.publishing.append(messages)
                self.accepted.update(message.id for message in messages)
            except BackendError as error:
                self.refused.append(error)
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.005)

    async def _consume(self):
        quiet = 0
        while quiet < 3:
            try:
                found = await self._subscription.fetch(100, 0.3)
                self._fetched = [(each.message.id, each.deliveries) for each in found[:5]] or self._fetched
                quiet = 0 if found else quiet + self._over
                self.handled.update(each.message.id for each in found)
                refused = await self._settle(found)
            except BackendUnavailable as error:
                self.outages.append(error)
                await asyncio.sleep(0.05)
                continue
            self.acked.update({each.message.id for each in found if each not in refused})

    async def _settle(self, found):
        """Ack until that is accepted or refused, as a consumer does."""
        left, refused = list(found), []
        while left:
            try:
                refused += await self._subscription.settle([(each, self._outcome(each)) for each in left])
                left = []
            except BackendUnavailable as error:
                self.outages.append(error)
                self.acked.update(each.message.id for each in error.settled)
                left = [each for each in left if each not in error.settled]
                await asyncio.sleep(0.05)
        return refused
