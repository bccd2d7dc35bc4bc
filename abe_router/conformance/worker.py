"""A worker process: `python -m abe_router.conformance.worker URL STORE PATTERN GROUP LEASE LIMIT [KIND]`.

It says `S ID` on its standard output for each delivery it starts on and `E ID` for each it has settled.
With a LIMIT it starts on that many and then stands still, for someone to kill it. Its handle is
an exclusive one when KIND is `exclusive`.
"""

from __future__ import annotations

import asyncio
import os
import sys

from abe_router.backend import ACKED, Subscription
from abe_router.backends import make_backend


async def work(
    url: str, store: str, pattern: str, group: str, lease: float, limit: int, kind: str = ""
) -> None:
    """Fetch and settle until killed."""
    backend = make_backend(url, prefix=store)
    subscribe = backend.subscribe_exclusive if kind == "exclusive" else backend.subscribe
    handle: Subscription = await subscribe(pattern, group, lease=lease)
    started = 0
    while not limit or started < limit:
        deliveries = await handle.fetch(min(10, limit - started) if limit else 10, 1.0)
        for delivery in deliveries:
            _say(f"S {delivery.message.id}")
        started += len(deliveries)
        if limit:
            continue
        refused = await handle.settle([(delivery, ACKED) for delivery in deliveries])
        for delivery in deliveries:
            if delivery not in refused:
                _say(f"E {delivery.message.id}")
    await asyncio.Event().wait()


def _say(line: str) -> None:
    # One unbuffered write, so that what was said is known even of a process that is killed.
    os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    url, store, pattern, group, lease, limit, *kind = sys.argv[1:]
    asyncio.run(work(url, store, pattern, group, float(lease), int(limit), *kind))
