"""The server stops, or its replies are lost."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from typing import TypeVar
from unittest import SkipTest
from urllib.parse import urlsplit

from abe_router.backend import ACKED, Backend, Delivery
from abe_router.backends import make_backend
from abe_router.conformance.faulty_proxy import FaultyProxy
from abe_router.conformance.harness import SOON, Harness, ack, assert_exactly_once, take
from abe_router.conformance.suite import Suite, check
from abe_router.errors import BackendUnavailable
from abe_router.messages.message import Message, new_message

T = TypeVar("T")


class FaultTests(Suite):
    """For providers with a server: `url` has its host and port, `stop_server` and `start_server` work."""

    @check()
    async def test_absent_server_raises_backend_unavailable(self, harness: Harness) -> None:
        """A bug loses what a caller does not send again, because the error is one of some library."""
        # A port that is bound and on which nothing listens refuses, and no other program can take it.
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            backend = self._through(harness, bound.getsockname()[1])
            for call in (backend.open, backend.status, lambda: harness.publish(1, backend=backend)):
                try:
                    await call()
                except BackendUnavailable:
                    continue
                raise AssertionError("the server is absent, and the call raised nothing")
            await backend.close()

    @check("durable", "leases")
    async def test_restart_of_the_server_loses_nothing(self, harness: Harness) -> None:
        """A bug loses what was kept or in flight; or it blocks consumers that never connect again."""
        handle = await harness.subscribe(lease=self.lease)
        sent = await harness.publish(20)
        await ack(handle, await take(handle, 5))
        held = await take(handle, 5)
        waiting = asyncio.create_task((await harness.subscribe("quiet.key")).fetch(1, 20.0))
        await harness.pause()
        self.stop_server()
        try:
            for call in (lambda: harness.publish(), harness.backend.status, lambda: handle.fetch(1, 1.0)):
                try:
                    await call()
                except BackendUnavailable:
                    continue
                raise AssertionError("the server is gone, and the call raised nothing")
        finally:
            self.start_server()
        (ended,) = await asyncio.gather(waiting, return_exceptions=True)
        assert not ended or isinstance(ended, BackendUnavailable)
        sent += await _persist(lambda: harness.publish(3))
        other = await _persist(lambda: harness.subscribe())
        late = await _persist(lambda: handle.settle([(delivery, ACKED) for delivery in held]))
        refused = {delivery.message.id for delivery in late}
        expected = [m for n, m in enumerate(sent) if n >= 10 or (n >= 5 and m.id in refused)]
        came = await take(other, len(expected), within=self.lease + SOON)
        assert_exactly_once(expected, came)
        await ack(other, came)
        await harness.assert_nothing_comes(other, self.lease)

    @check()
    async def test_lost_reply_doubles_nothing(self, harness: Harness) -> None:
        """A bug duplicates what a client library sends again by itself."""
        chance = Random(11)  # noqa: S311
        confirmed: list[Message] = []
        async with self._proxy(lambda: chance.random() < 0.2) as proxy:
            publisher = self._through(harness, proxy.address[1])
            for _ in range(60):
                try:
                    confirmed += await harness.publish(backend=publisher)
                except BackendUnavailable:
                    continue
            await publisher.close()
        assert proxy.lost, "no reply was lost, so the test shows nothing"
        handle = await harness.subscribe()
        came = await take(handle, len(confirmed))
        came += await handle.fetch(100, 0.2)
        ids = {delivery.message.id for delivery in came}
        assert ids >= {message.id for message in confirmed}, "what was confirmed is lost"
        assert len(ids) == len(came), f"{len(came) - len(ids)} were duplicated"

    @check("dedupe")
    async def test_message_that_is_appended_once_until_confirmed_is_kept_once(self, harness: Harness) -> None:
        """A bug duplicates what is published again because the reply was lost; or it loses what was not."""
        chance = Random(13)  # noqa: S311
        messages = [new_message("orders.created", b"0", id=f"id-{n}") for n in range(60)]
        async with self._proxy(lambda: chance.random() < 0.2) as proxy:
            publisher = self._through(harness, proxy.address[1])
            for message in messages:
                await _persist(partial(publisher.append_once, [(message, 60.0)]))
            await publisher.close()
        assert proxy.lost, "no reply was lost, so the test shows nothing"
        handle = await harness.subscribe()
        assert_exactly_once(messages, await take(handle, len(messages)))
        await harness.assert_nothing_comes(handle)

    @check("dedupe", "durable")
    async def test_restart_of_the_server_forgets_no_id(self, harness: Harness) -> None:
        """A bug duplicates what is published again when the server is back."""
        message = new_message("orders.created", b"0", id="id")
        assert not await harness.backend.append_once([(message, 60.0)])
        self.stop_server()
        self.start_server()
        assert list(await _persist(lambda: harness.backend.append_once([(message, 60.0)]))) == [message]

    @check("key_value", "durable")
    async def test_restart_of_the_server_forgets_no_entry(self, harness: Harness) -> None:
        """A bug loses edits and overrides; or a revision is given twice."""
        backend = harness.backend
        kept = await backend.put("edits", "1", b"x")
        gone = await backend.put("edits", "2", b"x")
        assert await backend.delete("edits", "2")
        self.stop_server()
        self.start_server()
        entries = await _persist(lambda: backend.entries("edits"))
        assert {name: (each.value, each.revision) for name, each in entries.items()} == {"1": (b"x", kept)}
        assert await backend.put("edits", "2", b"y", expected=gone) == 0
        assert await backend.put("edits", "2", b"y", expected=0) > gone

    @check("leases")
    async def test_lost_reply_to_fetch_or_settle_loses_nothing(self, harness: Harness) -> None:
        """A bug loses what was fetched, or settled, when the reply was lost."""
        chance = Random(12)  # noqa: S311
        sent = await harness.publish(60)
        seen: list[Delivery] = []
        lease = max(0.5, self.lease)
        async with self._proxy(lambda: chance.random() < 0.15) as proxy:
            backend = self._through(harness, proxy.address[1])
            handle = await _persist(lambda: backend.subscribe("orders.created", "billing", lease=lease))
            async with asyncio.timeout(20.0):
                while any((await harness.counts())[:3]):
                    fetched = await _persist(lambda: handle.fetch(5, 0.2))
                    seen += fetched
                    batch = [(delivery, ACKED) for delivery in fetched]
                    await _persist(partial(handle.settle, batch))
            await _persist(backend.close)
        assert proxy.lost, "no reply was lost, so the test shows nothing"
        assert {delivery.message.id for delivery in seen} == {message.id for message in sent}
        assert len(seen) - len(sent) <= proxy.lost * 5

    def _proxy(self, cut: Callable[[], bool]) -> FaultyProxy:
        parts = urlsplit(self.url)
        if not parts.hostname or not parts.port:
            raise SkipTest("the URL has no host and port to put a faulty proxy in front of")
        return FaultyProxy(parts.hostname, parts.port, cut)

    def _through(self, harness: Harness, port: int) -> Backend:
        """Return a backend on the same prefix, through another port of this host."""
        parts = urlsplit(self.url)
        if not parts.hostname or not parts.port:
            raise SkipTest("the URL has no host and port")
        credentials, at, _ = parts.netloc.rpartition("@")
        url = parts._replace(netloc=f"{credentials}{at}127.0.0.1:{port}").geturl()
        return make_backend(url, prefix=harness.prefix)


async def _persist(call: Callable[[], Awaitable[T]]) -> T:
    """Try again while the server cannot be reached, as a consumer does."""
    while True:
        try:
            return await call()
        except BackendUnavailable:
            await asyncio.sleep(0.02)
