"""A shop for the pages to show: routes with owners, nested payloads, edits, acts and messages."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from abe_router.config.building.loader import Loader
from abe_router.edits.history import EditRecorder
from abe_router.errors import ConfigError
from abe_router.operations.audit import Author, record_act
from abe_router.runtime.publish import publish
from tests.http_server.serving import Serving, all_tokens, serving

ORDER = {
    "type": "object",
    "required": ["id", "total", "items"],
    "additionalProperties": False,
    "properties": {
        "id": {"type": "string", "description": "The number on the invoice", "pattern": "^ord_[0-9]+$"},
        "total": {"type": "number", "minimum": 0},
        "currency": {"enum": ["EUR", "USD", "SEK"], "default": "EUR"},
        "express": {"type": "boolean", "description": "Leaves the house today"},
        "customer": {"$ref": "customer.json"},
        "items": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["sku", "qty"],
                "properties": {"sku": {"type": "string"}, "qty": {"type": "integer", "minimum": 1}},
            },
        },
        "notes": {"type": "array", "items": {"type": "string"}},
        "meta": {},
    },
}
CUSTOMER = {
    "type": "object",
    "required": ["id"],
    "properties": {
        "id": {"type": "integer"},
        "email": {"type": "string", "format": "email"},
        "card": {"type": "string", "maxLength": 30, "x-sensitive": True},
    },
}
ROUTES = """\
backend: memory://
http:
  listen: 127.0.0.1:0
  probes: 127.0.0.1:0
  tokens:
{tokens}
routes:
  orders.created:
    description: A customer has paid at the checkout.
    tags: [shop, money]
    owner: team-checkout
    schema: orders.created.json
    dedupe: 1h
    id: /id
    retain: 7d
    consumers:
      billing: {{handler: "os:getcwd", owner: team-billing, emit: payments.requested}}
      audit:
        handler: "os:getcwd"
        concurrency: {concurrency}
        when: {{properties: {{total: {{minimum: 100}}}}}}
  orders.*:
    consumers:
      search-index: "os:getcwd"
  payments.requested:
    description: The payment provider has to be asked.
    owner: team-billing
    consumers: {{provider: "os:getcwd"}}
  stock.low:
    description: Fewer than ten pieces are left.
    tags: [warehouse]
"""


def shop_routes(concurrency: int | str = 2) -> str:
    """Return the routes file of the shop."""
    tokens = "\n".join(f"    {name}: {options}" for name, options in all_tokens().items())
    return ROUTES.format(tokens=tokens, concurrency=concurrency)


def an_order(number: int, **changes: object) -> dict[str, object]:
    """Return a valid payload of `orders.created`."""
    items = [{"sku": "TEA-100", "qty": 2}, {"sku": "CUP-004", "qty": number}]
    customer = {"id": 55120 + number, "email": "ada@example.com", "card": "4929-1234-5678-9012"}
    return {"id": f"ord_{number}", "total": 131.4, "customer": customer, "items": items, **changes}


async def offer(served: Serving, text: str) -> None:
    """Save a routes file, and record the edit as a running worker does; the server follows it."""
    path = served.table.path
    assert path is not None
    path.write_text(text)
    recorder, loader = EditRecorder(served.backend), Loader(path, import_handlers=False)
    try:
        served.table = loader.load()
        recorder.accept(served.table)
    except ConfigError as error:
        recorder.reject(path, loader.files, error.diagnostics)
    await recorder.record()


async def fill(served: Serving, text: str = "") -> None:
    """Make edits, acts and messages; in the end the table is that of `text`, if it is given."""
    for concurrency in (2, 4, "four", 3):
        await offer(served, shop_routes(concurrency))
    if text:
        await offer(served, text)
    ops = Author("ada@laptop", "command line")
    await record_act(
        served.backend, ops, "pause", "orders.created/billing", why="gateway down", result="until 14:20"
    )
    await record_act(
        served.backend,
        ops,
        "dead replay",
        "orders.*/search-index",
        why="fixed in 7c1e4d0",
        result="40 of 40 handled",
    )
    await record_act(served.backend, Author("operator", "http 10.0.0.7"), "resume", "orders.created/billing")
    for number in range(1, 8):
        await publish(
            served.table, served.backend, "orders.created", an_order(number), headers={"x-tenant": "eu-1"}
        )


@asynccontextmanager
async def shop(folder: Path, text: str = "") -> AsyncIterator[Serving]:
    """Run a server for the shop, with everything that `fill` makes."""
    (folder / "schemas").mkdir(exist_ok=True)
    for name, schema in (("orders.created.json", ORDER), ("customer.json", CUSTOMER)):
        (folder / "schemas" / name).write_text(json.dumps(schema, indent=2))
    async with serving(folder, text or shop_routes()) as served:
        await fill(served, text)
        yield served
