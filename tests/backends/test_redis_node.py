"""The background work of the Redis provider survives unexpected errors."""

from __future__ import annotations

from abe_router.backends.redis import node
from abe_router.backends.redis.notifier import Notifier

from .deliveries import bodies

KEY, GROUP = "orders.created", "billing"


async def test_an_unexpected_error_is_logged_and_the_work_runs_again(
    redis_backend, redis_client, prefix, monkeypatch, caplog
):
    wait = Notifier._wait

    async def fail_once(self):
        monkeypatch.setattr(Notifier, "_wait", wait)
        raise ValueError("unexpected")

    monkeypatch.setattr(node, "_DELAY", 0.01)
    monkeypatch.setattr(Notifier, "_wait", fail_once)
    handle = await redis_backend.subscribe(KEY, GROUP)
    assert not await handle.fetch(1, 0)
    await redis_client.xadd(prefix + KEY, {"data": "1"})
    assert bodies(await handle.fetch(1, 5.0)) == [b"1"]
    assert "Notifier.run failed" in caplog.text
    assert "ValueError: unexpected" in caplog.text
