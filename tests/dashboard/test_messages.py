"""The pages of the messages: the contract of each key, to read, and only for the keys that a token allows."""

from __future__ import annotations

import json
import time

from tests.http_server.serving import all_tokens, ask, secret, serving

from .shop import ORDER, offer, shop_routes

HOSTILE = "</td><script>window.hacked=1</script>\"'><img src=x onerror=window.hacked=1>"
#: Processor time of one page, in seconds. It is four times what is promised, for slow machines.
MOST_TIME = 0.8


async def test_page_of_a_key_shows_its_contract_and_its_consumers(browser, served):
    await browser.log_in(served.url, secret("admin"))
    await browser.open("/messages")
    await browser.fill("tag", "shop")
    await browser.press("Filter")
    assert await browser.texts("tbody th") == ["orders.created"]
    await browser.press("orders.created", within="tbody")
    rows = await browser.texts("tbody tr")
    assert len(rows) == len(ORDER["properties"]) + 8
    assert "/id string yes pattern ^ord_[0-9]+$ The number on the invoice" in rows
    assert "/customer/card string masked – maxLength 30" in rows
    text = await browser.text()
    assert "search-index by the pattern orders.*" in text
    assert "dropped for 1 h" in text
    await browser.press("payments.requested")
    assert await browser.texts("main h1") == ["payments.requested"]
    assert "emitted by\norders.created/billing" in await browser.text()
    await browser.press("Follow the tail")
    assert await browser.address() == "/tail?pattern=payments.requested"


async def test_keys_that_the_token_does_not_allow_are_not_shown(browser, served):
    await browser.log_in(served.url, secret("orders-viewer"))
    await browser.open("/messages")
    assert await browser.texts("tbody th") == ["orders.created", "orders.*\npattern"]
    await browser.open("/messages/orders.created")
    assert "Publish: the role publisher is needed" in await browser.text()
    await browser.open("/messages/stock.low")
    assert await browser.texts("main h1") == ["The token does not allow this"]
    await browser.open("/messages/orders.unknown")
    assert await browser.texts("main h1") == ["Not found"]
    await browser.messages()


async def test_texts_of_the_file_and_of_schemas_are_shown_as_text(browser, served):
    schema = {
        "description": HOSTILE,
        "properties": {HOSTILE: {"description": HOSTILE, "enum": [HOSTILE], "pattern": "</td><script>"}},
    }
    (served.table.path.parent / "schemas" / "stock.json").write_text(json.dumps(schema))
    options = "\n".join(f"    {name}: {json.dumps(HOSTILE)}" for name in ("owner", "description"))
    text = shop_routes().replace(
        "tags: [warehouse]", f"tags: [{json.dumps(HOSTILE)}]\n    schema: stock.json"
    )
    text = text.replace("    description: Fewer than ten pieces are left.", options)
    await offer(served, text)
    await browser.log_in(served.url, secret("admin"))
    for path in (
        "/messages?q=<script>window.hacked=1</script>&owner=<script>",
        "/messages",
        "/messages/stock.low",
    ):
        await browser.open(path)
        assert await browser.run(lambda driver: driver.execute_script("return window.hacked")) is None
    assert (await browser.text()).count(HOSTILE) >= 4
    await browser.messages()


async def test_pages_over_a_thousand_routes_take_little_time(tmp_path):
    tokens = "\n".join(f"    {name}: {options}" for name, options in all_tokens().items())
    keys = "\n".join(
        f"  shop.key{at}: {{consumers: {{one: os:getcwd}}, tags: [t{at % 7}]}}" for at in range(1000)
    )
    text = f"backend: memory://\nhttp:\n  listen: 127.0.0.1:0\n  tokens:\n{tokens}\nroutes:\n{keys}\n"
    async with serving(tmp_path, text) as served:
        took = {}
        for path in ("/messages", "/messages/shop.key500", "/publish", "/publish?key=shop.key1", "/tail"):
            for _ in range(2):  # the first request compiles the template
                began = time.process_time()
                answer = await ask(served, "admin", "GET", path)
                took[path] = time.process_time() - began
            assert answer.status_code == 200
    assert max(took.values()) < MOST_TIME, took
