"""What a backend on Redis does in the background goes on, whatever goes wrong there."""

from __future__ import annotations

from abe_router.backends.redis import session
from abe_router.backends.redis.waker import Waker

from .hands import bodies

KEY, GROUP = "orders.created", "billing"


async def test_work_that_fails_as_nobody_expected_is_told_of_and_begins_anew(
    redis_backend, redis_client, prefix, monkeypatch, caplog
):
    wait = Waker._wait

    async def fail_once(self):
        monkeypatch.setattr(Waker, "_wait", wait)
        raise ValueError("nobody thought of this")

    monkeypatch.setattr(session, "_PAUSE", 0.01)
    monkeypatch.setattr(Waker, "_wait", fail_once)
    handle = await redis_backend.subscribe(KEY, GROUP)
    assert not await handle.fetch(1, 0)
    await redis_client.xadd(prefix + KEY, {"data": "1"})
    assert bodies(await handle.fetch(1, 5.0)) == [b"1"]
    assert "Waker.run failed" in caplog.text
    assert "ValueError: nobody thought of this" in caplog.text
