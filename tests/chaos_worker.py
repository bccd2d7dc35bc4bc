"""`abe-router serve` on SQLite with a bug, which the environment variable `BUG` selects."""

from __future__ import annotations

import os

import msgspec

from abe_router.__main__ import main
from abe_router.backend import ACKED, Acked
from abe_router.backends.sqlite import SQLiteBackend
from abe_router.backends.sqlite.subscription import SQLiteSubscription

fetch, settle, subscribe = SQLiteSubscription.fetch, SQLiteSubscription.settle, SQLiteBackend.subscribe


async def fetch_and_ack(self, limit, wait):
    deliveries = await fetch(self, limit, wait)
    await settle(self, [(delivery, ACKED) for delivery in deliveries])
    return deliveries


async def settle_nothing(self, settlements):
    return []


async def settle_for_anyone(self, settlements):
    await settle(self, settlements)
    return []


async def subscribe_for_good(self, pattern, group, *, lease, **options):
    return await subscribe(self, pattern, group, lease=3600.0, **options)


async def fetch_twice(self, limit, wait):
    return [delivery for delivery in await fetch(self, limit, wait) for _ in range(2)]


async def emit_twice(self, settlements):
    for delivery, outcome in settlements:
        copies = [msgspec.structs.replace(output, id=f"{output.id}-too") for output in outcome.outputs]
        await settle(self, [(delivery, Acked((*outcome.outputs, *copies)))])
    return []


if __name__ == "__main__":
    match os.environ["BUG"]:
        case "acks before the handler":
            SQLiteSubscription.fetch, SQLiteSubscription.settle = fetch_and_ack, settle_nothing
        case "settles for anyone":
            SQLiteSubscription.settle = settle_for_anyone
        case "never reclaims":
            SQLiteBackend.subscribe = subscribe_for_good
        case "does all twice":
            SQLiteSubscription.fetch, SQLiteSubscription.settle = fetch_twice, emit_twice
    main()
