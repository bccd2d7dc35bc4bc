"""A producer publishes again to be sure, and each handler gets every message once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from abe_router import Duplicate, Router
from abe_router.messages.dedupe import Deduplication
from abe_router.observe.events import DeadLettered, Handled
from abe_router.routing.contract import MessageContract
from abe_router.routing.policies import CAUSE, Emit, RetryPolicy

from .conftest import make_route

ROUTES = """\
backend: sqlite:///queue.db
routes:
  orders.created:
    id: /order_id
    dedupe: 10m
    consumers:
      pricing: {handler: shop:price, emit: orders.priced}
  orders.priced:
    id: /order_id
    dedupe: 10m
    consumers:
      billing: shop:bill
"""
HANDLERS = """\
def price(order):
    return {"order_id": order["order_id"], "total": order["qty"] * 2}

def bill(order):
    with open("billed.txt", "a") as billed:
        print(order["order_id"], order["total"], file=billed)
"""


@pytest.fixture
def shop(tmp_path):
    (tmp_path / "routes.yaml").write_text(ROUTES)
    (tmp_path / "shop.py").write_text(HANDLERS)
    return tmp_path


def abe_router(folder, *args, stdin=""):
    command = [sys.executable, "-m", "abe_router", *args]
    return subprocess.run(
        command, cwd=folder, input=stdin, capture_output=True, text=True, check=False, timeout=60
    )


def test_file_published_twice_is_handled_once(shop):
    orders = "".join(json.dumps({"order_id": n, "qty": n}) + "\n" for n in range(1, 31))
    half = "".join(orders.splitlines(keepends=True)[:20])
    interrupted = abe_router(shop, "publish", "orders.created", "--ndjson", "-", stdin=half)
    whole = abe_router(shop, "publish", "orders.created", "--ndjson", "-", stdin=orders)
    assert (interrupted.returncode, interrupted.stderr) == (0, "published 20, rejected 0\n")
    assert (whole.returncode, whole.stderr) == (0, "published 10, duplicates 20, rejected 0\n")

    assert abe_router(shop, "serve", "--once").returncode == 0
    again = abe_router(shop, "publish", "orders.created", "--ndjson", "-", stdin=orders)
    assert again.stderr == "published 0, duplicates 30, rejected 0\n"
    assert abe_router(shop, "serve", "--once").returncode == 0
    billed = sorted((shop / "billed.txt").read_text().splitlines())
    assert billed == sorted(f"{n} {n * 2}" for n in range(1, 31))


async def test_publish_returns_a_duplicate_for_a_known_id(shop):
    async with Router.from_file(shop / "routes.yaml", consume=False) as router:
        first = await router.publish("orders.created", {"order_id": 7, "qty": 1})
        again = await router.publish("orders.created", {"order_id": 7, "qty": 1})
    assert (first.id, again.id) == ("7", "7")
    assert not isinstance(first, Duplicate)
    assert isinstance(again, Duplicate)


async def test_two_causes_of_one_id_emit_once(running):
    async def price(payload):
        return {"order_id": 7, "total": payload}

    emit = Emit("orders.priced", MessageContract(deduplication=Deduplication(600.0, "/order_id")))
    await running.route(make_route(price, emit=emit, concurrency=1))
    first = await running.backend.publish("orders.created", 1)
    await running.publish("orders.created", 2)
    await running.log.wait_for(Handled, 2)

    handle = await running.backend.subscribe("orders.priced", "billing")
    emitted = [delivery.message for delivery in await handle.fetch(10, 0)]
    assert [(message.id, message.payload["total"]) for message in emitted] == [("7", 1)]
    assert emitted[0].headers[CAUSE] == first.id


async def test_answer_without_its_id_is_a_failure(running):
    async def price(payload):
        return {"total": 2}

    emit = Emit("orders.priced", MessageContract(deduplication=Deduplication(600.0, "/order_id")))
    await running.route(make_route(price, emit=emit, retry=RetryPolicy(attempts=1)))
    await running.publish("orders.created", 1)
    (dead_lettered,) = await running.log.wait_for(DeadLettered)
    assert dead_lettered.error.startswith(
        "IdInvalid: message for `orders.priced` has no valid id: the value at /order_id"
    )
