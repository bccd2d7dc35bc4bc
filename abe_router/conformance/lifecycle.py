"""Opening, closing, interrupting, in any order and at any moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from abe_router.backend import Delivery
from abe_router.conformance.store import GROUP, KEY, SOON, Store, ack, numbers, once, take
from abe_router.conformance.suite import Suite, check
from abe_router.errors import BackendError


class LifecycleTests(Suite):
    """A consumer can stop at any time, at once, and nothing is left behind."""

    @check()
    async def test_opening_and_closing_are_idempotent(self, store: Store) -> None:
        """Stopping must not fail because something stopped before."""
        backend = store.backend
        await backend.close()
        await backend.open()
        await backend.open()
        handle = await store.subscribe()
        await handle.close()
        await handle.close()
        await backend.close()
        await backend.close()

    @check()
    async def test_every_method_opens_the_backend_when_need_be(self, store: Store) -> None:
        """A publisher or a command has no reason to open first."""
        sent = await store.publish()
        once(sent, await take(await store.another().subscribe(KEY, GROUP), 1))
        assert await store.another().dead_letters(KEY, GROUP) is not None
        assert await store.another().status()

    @check()
    async def test_closing_a_handle_ends_its_fetch(self, store: Store) -> None:
        """Stuck otherwise: a consumer whose key is silent could not stop."""
        handle = await store.subscribe()
        await _ends(store, asyncio.create_task(handle.fetch(10, 30.0)), handle.close)

    @check()
    async def test_closing_the_backend_ends_every_fetch(self, store: Store) -> None:
        """Stuck otherwise: a program whose keys are silent could not stop."""
        handles = [await store.subscribe(), await store.subscribe("other.#")]
        fetching = asyncio.gather(*(handle.fetch(10, 30.0) for handle in handles))
        await _ends(store, fetching, store.backend.close)

    @check()
    async def test_a_closed_handle_fetches_nothing(self, store: Store) -> None:
        """Stranded otherwise: what is handed to somebody who has left."""
        handle, other = await store.subscribe(), await store.subscribe()
        await handle.close()
        sent = await store.publish(3)
        began = time.monotonic()
        assert not await handle.fetch(10, 10.0)
        assert time.monotonic() - began < 1.0
        once(sent, await take(other, 3, within=1.0))

    @check()
    async def test_interrupting_ends_the_wait(self, store: Store) -> None:
        """Stuck otherwise: a consumer would wait its time before it stops."""
        handle = await store.subscribe()
        fetching = asyncio.create_task(handle.fetch(10, 30.0))
        await store.pause()
        handle.interrupt()
        async with asyncio.timeout(1.0):
            assert not await fetching

    @check()
    async def test_interrupting_before_the_fetch_counts_for_one_fetch(self, store: Store) -> None:
        """Stuck otherwise: an interruption between two fetches would be lost; nor may it last."""
        handle = await store.subscribe()
        handle.interrupt()
        handle.interrupt()
        async with asyncio.timeout(1.0):
            assert not await handle.fetch(10, 30.0)
        fetching = asyncio.create_task(handle.fetch(10, 10.0))
        await asyncio.sleep(0.1)
        assert not fetching.done()
        sent = await store.publish()
        once(sent, await fetching)

    @check()
    async def test_interrupting_loses_nothing(self, store: Store) -> None:
        """Lost otherwise: what arrived at the moment of the interruption."""
        handle = await store.subscribe()
        came: list[Delivery] = []
        sent = []
        for _ in range(60):
            fetching = asyncio.create_task(handle.fetch(10, 5.0))
            publishing = asyncio.create_task(store.publish(2))
            await asyncio.sleep(0.001)
            handle.interrupt()
            came += await fetching
            sent += await publishing
        came += await take(handle, len(sent) - len(came)) if len(came) < len(sent) else []
        once(sent, came)

    @check("leases")
    async def test_reopening_finds_everything_again(self, store: Store) -> None:
        """Lost otherwise: what was in hand or untouched at a restart."""
        handle = await store.subscribe(lease=self.lease)
        sent = await store.publish(10)
        held = await take(handle, 4)
        await ack(handle, held[:2])
        await store.reopen()
        again = await store.subscribe()
        came = await take(again, 8, within=self.lease + SOON)
        once(sent[2:], came)
        assert sorted(numbers(came)) == list(range(2, 10))
        await ack(again, came)
        await store.nothing(again, self.lease)

    @check()
    async def test_methods_may_run_at_the_same_time(self, store: Store) -> None:
        """Crossed replies otherwise: one call would get the answer of another."""
        handle = await store.subscribe()
        quiet = await store.subscribe("quiet.key")
        waiting = asyncio.create_task(quiet.fetch(1, 30.0))
        for _ in range(10):
            sent, statuses, letters, said, fetched = await asyncio.gather(
                store.publish(3),
                store.backend.status(),
                store.backend.dead_letters(KEY, GROUP),
                store.backend.announcements(),
                handle.fetch(10, 0.0),
            )
            assert {s.pattern for s in statuses} == {KEY, "quiet.key"}
            assert (list(letters), dict(said)) == ([], {})
            came = [*fetched, *(await take(handle, 3 - len(fetched)) if len(fetched) < 3 else [])]
            once(sent, came)
            await ack(handle, came)
        quiet.interrupt()
        assert not await waiting


async def _ends(store: Store, fetching: asyncio.Future[Any], close: Callable[[], Awaitable[None]]) -> None:
    """Check that a fetch ends within a second of the closing."""
    await store.pause()
    assert not fetching.done()
    async with asyncio.timeout(1.0):
        await close()
        with suppress(BackendError):  # a way to say so too
            await fetching
