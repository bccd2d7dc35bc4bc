"""The page that publishes: the example of a schema, the verdict while typing, and what is stored."""

from __future__ import annotations

import json

from abe_router.errors import BackendUnavailable
from abe_router.messages.message import decode
from abe_router.operations.payload_fields import example_of, payload_field
from tests.http_server.serving import secret

from .shop import offer, shop_routes

HOSTILE = "<script>window.hacked=1</script>\"'><img src=x onerror=window.hacked=1>"


async def stored(served, key: str = "orders.created"):
    """Return the newest message of a key."""
    return (await served.backend.peek(key, None, limit=1000))[-1].message


async def test_verdict_follows_what_is_typed_and_the_message_is_published(browser, served):
    await browser.log_in(served.url, secret("admin"))
    await browser.open("/publish")
    await browser.press("orders.created")
    example = json.loads(await browser.text("textarea[name=json]"))
    assert example == {"id": "", "total": 0, "currency": "EUR", "items": [{"sku": "", "qty": 0}]}
    await browser.fill("json", '{"id": "ord_77", "items": []}')
    verdict = await browser.until("#verdict", lambda text: "would be refused" in text)
    assert "expected property total, found object with 2 members" in verdict
    order = '{"id": "ord_77", "total": 99.90, "currency": "EUR", "items": [{"sku": "TEA", "qty": 2}]}'
    await browser.fill("json", order)
    await browser.until("#verdict", lambda text: "would be accepted" in text)
    verdict = await browser.text("#verdict")
    assert "id ord_77: duplicates are dropped for 1 h" in verdict
    assert "when does not match" in verdict  # audit takes totals from 100 on
    assert len(await served.backend.peek("orders.created", None, limit=1000)) == 7
    await browser.messages()
    await browser.press("Publish to orders.created")
    assert "published ord_77 to orders.created" in await browser.text()
    message = await stored(served)
    assert message.body == order.encode()
    assert await browser.messages() == []


async def test_page_checks_nothing_once_the_form_is_sent(browser, served):
    await browser.log_in(served.url, secret("admin"))
    await browser.open("/publish?key=orders.created")
    script = """
        const [done, form] = [arguments[0], document.querySelector("form[data-check]")];
        let checks = 0;
        window.fetch = async () => { checks += 1; return new Response(""); };
        const type = () => form.dispatchEvent(new Event("input"));
        type();
        form.dispatchEvent(new Event("submit"));
        setTimeout(() => { const sent = checks; type(); setTimeout(() => done([sent, checks]), 400); }, 400);
    """
    assert await browser.run(lambda driver: driver.execute_async_script(script)) == [0, 1]


async def test_form_works_without_javascript(browser_without_javascript, served):
    browser = browser_without_javascript
    await browser.log_in(served.url, secret("admin"))
    await browser.open("/publish?key=orders.created")
    order = {"id": "ord_78", "total": 5, "items": [{"sku": "TEA", "qty": "none"}], "customer": {"id": 1}}
    await browser.fill("json", json.dumps(order))
    await browser.press("Check")
    assert 'expected integer, found "none"' in await browser.text("#verdict")
    await browser.fill("json", '{"id": ')
    await browser.press("Publish to orders.created")
    assert "cannot be checked" in await browser.text("#verdict")
    assert await browser.text("textarea[name=json]") == '{"id": '
    order["items"] = [{"sku": "TEA", "qty": 3}]
    await browser.fill("json", json.dumps(order))
    await browser.press("Headers")
    await browser.fill("headers", "x-tenant: eu-2")
    await browser.press("Publish to orders.created")
    message = await stored(served)
    assert decode(message.body) == order
    assert message.headers["x-tenant"] == "eu-2"


async def test_publisher_sees_the_contract_and_no_route(browser, served):
    await browser.log_in(served.url, secret("orders-publisher"))
    await browser.open("/publish")
    assert await browser.texts(".groups strong") == ["orders.created"]
    await browser.press("orders.created")
    await browser.press("Check")
    text = await browser.text("#verdict")
    assert "would be refused" in text
    assert "needs the role viewer" in text
    assert "billing" not in text
    await browser.open("/publish?key=stock.low")
    assert "The token does not allow this" in await browser.text()
    await browser.messages()


async def test_failing_backend_and_a_draining_router_say_what_is_known(browser, served):
    await browser.log_in(served.url, secret("admin"))
    await browser.open("/publish?key=stock.low")
    await browser.fill("json", '{"sku": "TEA"}')

    async def fail(*_: object) -> None:
        raise BackendUnavailable("the connection was lost")

    served.backend.append = fail
    await browser.press("Publish to stock.low")
    text = await browser.text()
    assert "It is unknown whether the message was published" in text
    assert "may arrive twice" in text
    assert await browser.text("textarea[name=json]") == '{"sku": "TEA"}'
    del served.backend.append
    served.draining = True
    await browser.press("Publish to stock.low")
    assert "The router is about to stop" in await browser.text()
    served.draining = False
    await browser.messages()


async def test_texts_of_schemas_and_payloads_are_shown_as_text(browser, served):
    schema = {
        "description": HOSTILE,
        "properties": {
            HOSTILE: {"type": "string", "description": HOSTILE, "pattern": "^x"},
            "choice": {"enum": [HOSTILE]},
        },
    }
    (served.table.path.parent / "schemas" / "stock.json").write_text(json.dumps(schema))
    options = f"    schema: stock.json\n    owner: {json.dumps(HOSTILE)}"
    text = shop_routes().replace("    tags: [warehouse]", options)
    await offer(served, text)
    await browser.log_in(served.url, secret("admin"))
    for path in ("/publish?key=stock.low", "/publish?key=<script>window.hacked=1</script>"):
        await browser.open(path)
        if "stock" in path:
            await browser.fill("json", json.dumps({HOSTILE: HOSTILE, "choice": HOSTILE}))
            await browser.until("#verdict", lambda text: "would be refused" in text and HOSTILE[:20] in text)
            await browser.press("Check")
            assert HOSTILE[:20] in await browser.text("#verdict")
        assert await browser.run(lambda driver: driver.execute_script("return window.hacked")) is None
    await browser.messages()


async def test_example_has_defaults_first_choices_and_what_is_required(served):
    schema = {
        "required": ["a", "b", "c", "d", "e", "f"],
        "properties": {
            "a": {"default": [1]},
            "b": {"enum": ["x", "y"]},
            "c": {"type": "array", "items": {"type": "boolean"}},
            "d": {"type": ["null", "string"]},
            "e": {"required": ["g"], "properties": {"g": {"type": "number"}}},
            "h": {"type": "string"},
        },
    }
    (served.table.path.parent / "schemas" / "stock.json").write_text(json.dumps(schema))
    await offer(served, shop_routes().replace("    tags: [warehouse]", "    schema: stock.json"))
    example = example_of(payload_field(served.table, "stock.low"))
    assert example == {"a": [1], "b": "x", "c": [False], "d": "", "e": {"g": 0}, "f": {}}
