"""A worker process: `python -m abe_router.conformance.worker URL PREFIX PATTERN GROUP LEASE LIMIT [KIND]`.

It prints `S ID` for each delivery it starts and `E ID` for each it has settled. With a LIMIT it starts that
many and then waits, to be killed. Its handle is exclusive when KIND is `exclusive`.
"""

from __future__ import annotations

import asyncio
import os
import sys

from abe_router.backend import ACKED, Subscription
from abe_router.backends import make_backend


async def work(
    url: str, prefix: str, pattern: str, group: str, lease: float, limit: int, kind: str = ""
) -> None:
    """Fetch and settle until killed."""
    backend = make_backend(url, prefix=prefix)
    subscribe = backend.subscribe_exclusive if kind == "exclusive" else backend.subscribe
    handle: Subscription = await subscribe(pattern, group, lease=lease)
    started = 0
    while not limit or started < limit:
        deliveries = await handle.fetch(min(10, limit - started) if limit else 10, 1.0)
        for delivery in deliveries:
            _print(f"S {delivery.message.id}")
        started += len(deliveries)
        if limit:
            continue
        refused = await handle.settle([(delivery, ACKED) for delivery in deliveries])
        for delivery in deliveries:
            if delivery not in refused:
                _print(f"E {delivery.message.id}")
    await asyncio.Event().wait()


def _print(line: str) -> None:
    # One unbuffered write: a process that is killed has printed all that it did.
    os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    url, prefix, pattern, group, lease, limit, *kind = sys.argv[1:]
    asyncio.run(work(url, prefix, pattern, group, float(lease), int(limit), *kind))
