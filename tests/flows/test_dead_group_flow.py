"""Dead letters of running consumers fall into groups by what failed and where."""

from __future__ import annotations

import asyncio
from types import ModuleType

from abe_router.errors import Reject
from abe_router.observe.events import DeadLettered
from abe_router.operations.audit import Author
from abe_router.operations.dead_groups import dead_groups, select
from abe_router.operations.replay import start_replay
from abe_router.routing.policies import RetryPolicy
from tests.limits import HANG

from .conftest import Running, make_route

SHOP = """
async def fetch(order):
    raise ConnectionError(f"no answer for order {order['id']}")

async def charge(order):
    if order["id"] % 2:
        await fetch(order)
    return order["total"]

def record(order):
    return [item["price"] for item in order["items"]]
"""


def shop(source: str = SHOP) -> ModuleType:
    module = ModuleType("shop")
    exec(compile(source, "/srv/shop.py", "exec"), module.__dict__)
    return module


async def test_groups_say_which_function_of_the_user_failed(running: Running) -> None:
    module = shop()
    await running.route(
        make_route(module.charge, retry=RetryPolicy(attempts=1)),
        make_route(module.record, group="audit", retry=RetryPolicy(attempts=1)),
    )
    await running.publish("orders.created", *({"id": number} for number in range(6)))
    await running.log.wait_for(DeadLettered, 12)
    found = (await dead_groups(running.backend)).groups
    assert {(group.route, group.count, group.place) for group in found} == {
        ("orders.created/audit", 6, "KeyError in shop:record"),
        ("orders.created/billing", 3, "KeyError in shop:charge"),
        ("orders.created/billing", 3, "ConnectionError in shop:fetch"),
    }
    (shapes,) = [group.shapes for group in found if "fetch" in group.place]
    assert shapes == ("no answer for order <n>",)


async def test_reformatted_handler_fails_with_the_same_fingerprint(running: Running) -> None:
    for number, source in enumerate((SHOP, SHOP.replace("\nasync", "\n\n# reformatted\n\nasync"))):
        await running.route(make_route(shop(source).charge, retry=RetryPolicy(attempts=1)))
        await running.publish("orders.created", {"id": 2 * number})
        await running.log.wait_for(DeadLettered, number + 1)
    (group,) = (await dead_groups(running.backend)).groups
    assert (group.count, group.place) == (2, "KeyError in shop:charge")


async def test_wait_of_a_replay_counts_the_ends_of_a_running_consumer(running: Running) -> None:
    mended = asyncio.Event()

    async def charge(order: dict[str, int]) -> None:
        if not mended.is_set() or order["id"] == 3:
            raise Reject("no stock")
        if order["id"] == 4:
            raise ValueError("no funds")

    await running.route(make_route(charge, retry=RetryPolicy(attempts=2, initial=0.05)))
    await running.publish("orders.created", *({"id": number} for number in range(6)))
    await running.log.wait_for(DeadLettered, 6)
    mended.set()
    route = ("orders.created", "billing")
    run = await start_replay(
        running.backend, await select(running.backend, route, first=5), Author("ada", "test"), wait=True
    )
    async with asyncio.timeout(HANG):
        async for _ in run.run():
            pass
    done = run.replay
    assert (done.replayed, done.died_same, done.died_other, done.waiting) == (5, 1, 1, 0)
