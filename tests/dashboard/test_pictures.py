"""Every page at three sizes in both themes: axe-core finds nothing, nothing is wider than the window.

With ABE_ROUTER_REWRITE=1, the pictures of docs/dashboard.md are made.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import yaml

from abe_router.backend import Reason
from abe_router.http.app import make_app
from abe_router.http.dashboard.page import PageRoute
from abe_router.operations.audit import Author, record_act
from abe_router.runtime.publish import publish
from tests.http_server.serving import Serving, ask, secret, serving

from . import busy
from .browser import SIZES, Browser
from .letters import Dying, kill
from .shop import CUSTOMER, ORDER, an_order, offer

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
#: Most bytes of all pictures.
MOST_BYTES = 1_500_000
#: The size of the window that pictures show, and how much they are scaled: text in them can be read.
SHOWN, SCALE = "laptop", 0.7
#: Names of pictures, and the pages that they show.
PAGES: Mapping[str, str] = {
    "login": "/login",
    "routes": "/routes",
    "route": "/routes/orders.cancelled/refunds",
    "workers": "/workers",
    "graph": "/graph",
    "dead": "/dead",
    "dead-letters": "/dead/orders.returned/warehouse",
    "dead-letter": "/dead/orders.returned/warehouse/3",
    "replay-question": "/dead/orders.returned/warehouse/replay",
    "purge-question": "/dead/orders.returned/warehouse/purge",
    "replays": "/replays",
    "replay": "/replays/1",
    "edits": "/edits",
    "edit": "/edits/3",
    "tail": "/tail?pattern=orders.%23",
    "publish": "/publish?key=orders.returned",
    "change": "/publish?dead=orders.returned/warehouse/2",
    "messages": "/messages",
    "message": "/messages/orders.returned",
    "audit": "/audit",
    "permissions": "/permissions",
    "error": "/nowhere",
}
#: What is pressed on a page first.
PRESSED = {"publish": "Check", "change": "Check"}
TRACEBACK = """\
Traceback (most recent call last):
  File "/app/shop/returns.py", line 57, in take_back
    shelf = find_shelf(order)
  File "/app/shop/shelves.py", line 23, in find_shelf
    raise KeyError(item["sku"])
KeyError: 'POT-011'
"""


def routes_file(concurrency: object = 2) -> str:
    """Return the routes file of the busy shop, and a key with a contract."""
    options = yaml.safe_load(busy.shop_file())
    options["http"]["republish"] = True
    options["routes"]["orders.returned"] = {
        "description": "A parcel has come back, and its items go to a shelf.",
        "tags": ["shop", "warehouse"],
        "owner": "logistics",
        "schema": "orders.returned.json",
        "id": "/id",
        "dedupe": "1h",
        "retain": "7d",
        "consumers": {
            "warehouse": {"handler": "os:getcwd", "concurrency": concurrency, "emit": "stock.changed"}
        },
    }
    options["routes"]["stock.changed"] = {"consumers": {"shop-window": "os:getcwd"}}
    return yaml.safe_dump(options, sort_keys=False)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Serving]:
    """Yield a server for a shop in which much has happened."""
    (tmp_path / "schemas").mkdir()
    for name, schema in (("orders.returned.json", ORDER), ("customer.json", CUSTOMER)):
        (tmp_path / "schemas" / name).write_text(json.dumps(schema, indent=2))
    async with serving(tmp_path, routes_file()) as found:
        for concurrency in (2, 4, "four", 3):
            await offer(found, routes_file(concurrency))
        await busy.fill(found)
        ada, backend = Author("ada@laptop", "command line"), found.backend
        ledger, refunds = "orders.paid/ledger", "orders.cancelled/refunds"
        await record_act(backend, ada, "pause", ledger, why="gateway down", result="until 14:20")
        await record_act(backend, ada, "dead replay", refunds, why="fixed", result="7 handled")
        said = "at /items/1/qty: minimum: expected at least 1, found 0"
        place = {"pointer": "/items/1/qty", "keyword": "minimum"}
        invalid = Reason("invalid", "PayloadInvalid", said, **place)
        frame = {"type": "KeyError", "frame": "shop.shelves:find_shelf"}
        failed = Reason("failed", "KeyError", "'POT-011'", TRACEBACK, **frame)
        dying = [
            Dying(an_order(1), failed, {"abe-cause": "ord-1", "x-tenant": "eu-1"}, ago=4000, id="ord_1"),
            Dying(an_order(2), failed, {"x-tenant": "eu-2"}, ago=90, id="ord_2", attempts=5),
            Dying(an_order(0), invalid, {"x-tenant": "eu-1"}, ago=40, id="ord_0"),
        ]
        ids = await kill(backend, dying, ("orders.returned", "warehouse"))
        for number in range(3, 9):
            await publish(found.table, backend, "orders.returned", an_order(number))
        asked = {"ids": [ids[0]], "why": "fixed in 7c1e4d0", "rate": 10}
        answer = await ask(
            found, "admin", "POST", "/v1/dead-letters/orders.returned/warehouse/replay", json=asked
        )
        assert answer.status_code < 300, answer.text
        yield found


async def test_every_page_is_in_the_list(served: Serving) -> None:
    """A page that has a name in its path is listed with an example of it."""
    routes = make_app(served.server._site).routes
    pages = [each for each in routes if isinstance(each, PageRoute) and "GET" in each.methods]
    listed = [path.partition("?")[0] for path in PAGES.values()]
    assert [page.path for page in pages if not any(map(page.path_regex.match, listed))] == []


@pytest.mark.timeout(300)
@pytest.mark.heavy(20)
async def test_pages_are_accessible_and_fit_at_three_sizes_in_both_themes(
    browser: Browser, served: Serving
) -> None:
    await browser.log_in(served.url, secret("admin"))
    await browser.messages()  # those of the page before
    found: dict[str, object] = {}
    for name, path in PAGES.items():
        await busy.put_workers(served)  # a worker reports every three seconds
        for theme, checked in (("light", "laptop"), ("dark", "phone")):
            await browser.set_theme(theme)
            await browser.set_size(checked)
            await browser.open(path)
            if name in PRESSED:
                await browser.press(PRESSED[name])
            found[f"{name} {theme}: axe"] = await browser.violations()
            # A theme changes colours alone, so one is enough for the widths.
            rewrites = bool(os.environ.get("ABE_ROUTER_REWRITE"))
            for size in SIZES if theme == "light" or rewrites else ():
                await browser.set_size(size)
                found[f"{name} {theme} {size}: overflow"] = await browser.overflow()
                if rewrites and size == SHOWN:
                    await take(browser, PICTURES / f"{name}-{theme}.webp")
        said = [each for each in await browser.messages() if "/nowhere" not in each]
        found[f"{name}: messages"] = said
    await browser.set_theme("light")
    await browser.set_size("laptop")
    assert {name: value for name, value in found.items() if value} == {}


async def take(browser: Browser, path: Path) -> None:
    """Write a picture of what the window shows."""
    width, height = SIZES[SHOWN]
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": SCALE}
    options = {"format": "webp", "quality": 60, "clip": clip, "captureBeyondViewport": True}
    answer = await browser.command("Page.captureScreenshot", options)
    await asyncio.to_thread(path.write_bytes, base64.b64decode(answer["data"]))


def gallery() -> str:
    """Return the table of all pictures."""
    rows = ["| page | | |", "|---|---|---|"]
    for name in PAGES:
        cells = [f"[{theme}](pictures/{name}-{theme}.webp)" for theme in ("light", "dark")]
        rows.append(f"| {name.replace('-', ' ')} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def test_docs_show_every_picture_and_all_of_them_are_small() -> None:
    page = PICTURES.parent / "dashboard.md"
    before, head, after = page.read_text().partition("\n## Pictures\n")
    text, _, _ = after.partition("\n| page |")
    if os.environ.get("ABE_ROUTER_REWRITE"):
        page.write_text(f"{before}{head}{text}\n{gallery()}")
    assert page.read_text().endswith(f"\n{gallery()}"), "ABE_ROUTER_REWRITE=1 rewrites the table"
    shown = set(re.findall(r"\(pictures/([\w-]+\.webp)\)", page.read_text()))
    assert shown == {path.name for path in PICTURES.glob("*.webp")}
    assert sum(path.stat().st_size for path in PICTURES.glob("*.webp")) < MOST_BYTES
