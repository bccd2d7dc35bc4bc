"""Changing a dead letter and publishing it: the form, what stays masked, and what each role may do."""

from __future__ import annotations

import json

import httpx
import pytest

from abe_router.backend import Acked
from abe_router.errors import BackendUnavailable
from tests.http_server.serving import SECRET, ask, secret, serving

from .letters import INVALID, ROUTE, Dying, kill
from .shop import an_order, shop, shop_routes

LIST = "/dead/orders.created/billing"
HOSTILE = "<script>window.hacked=1</script>\"'><img src=x onerror=window.hacked=1>"


@pytest.fixture
async def served(tmp_path):
    """Yield a server for a shop that allows to republish."""
    text = shop_routes().replace("  tokens:", "  republish: true\n  tokens:", 1)
    async with shop(tmp_path, text) as found:
        subscription = await found.backend.subscribe(*ROUTE)
        await subscription.settle([(each, Acked()) for each in await subscription.fetch(100, 5.0)])
        await subscription.close()
        yield found


async def published(served) -> tuple[dict, dict[str, str]]:
    """Return the payload and the headers of the newest message of `orders.created`."""
    message = (await served.backend.peek("orders.created", None, limit=1000))[-1].message
    return json.loads(message.body), dict(message.headers)


async def test_dead_letter_is_changed_published_and_purged(browser, served):
    order = an_order(3, total=-1)
    headers = {"x-tenant": "eu-1", "x-note": "two\nlines", "abe-cause": "before", "gone": "1"}
    *_, id = await kill(served.backend, [Dying(order, INVALID, headers, id="ord_3")])
    await browser.log_in(served.url, secret("admin"))
    await browser.messages()
    await browser.open(f"{LIST}/{id}")
    await browser.press("Change and publish…")
    assert await browser.address() == f"/publish?dead=orders.created%2Fbilling%2F{id}"
    text = await browser.text()
    assert "orders.created/billing, orders.created/audit, orders.*/search-index" in text
    assert "(masked /customer/card)" in text
    assert "do not fit in a line: x-note" in text
    assert order["customer"]["card"] not in await browser.run(lambda driver: driver.page_source)
    await browser.fill("headers", "x-tenant: eu-2")
    shown = await browser.text("textarea[name=json]")
    await browser.fill("json", shown.replace('"total": -1', '"total": 15.10'))
    verdict = await browser.until("#verdict", lambda text: "would be accepted" in text)
    assert "ord_3" not in verdict
    await browser.fill("why", "the total was wrong")
    await browser.press(f"Publish in place of {id}")
    text = await browser.text()
    assert f"in place of dead letter {id}, and purged dead letter {id}." in text
    assert await browser.address() == LIST or (await browser.address()).startswith(f"{LIST}?notice=")
    payload, stored = await published(served)
    assert payload == order | {"total": 15.10}
    assert stored == {"x-tenant": "eu-2", "x-note": "two\nlines", "abe-cause": "ord_3"}
    assert await served.backend.dead_letters(*ROUTE, limit=10) == []
    await browser.open("/audit")
    text = await browser.text("tbody tr")
    assert "changed /total, header gone, header x-tenant; purged" in text
    assert "the total was wrong" in text
    assert await browser.messages() == []


async def test_form_keeps_masked_values_of_moved_items_and_refuses_a_misplaced_one(served):
    *_, id = await kill(served.backend, [Dying(an_order(3), id="ord_3")])
    path = f"/publish?dead=orders.created/billing/{id}"
    card = "(masked /customer/card)"

    async def post(do: str, payload: dict, **more: str) -> str:
        form = {"do": do, "json": json.dumps(payload), **more}
        origin = {"Origin": served.url}
        return (await ask_form(served, path, form, origin)).text

    assert "is not a sensitive place" in await post("check", an_order(3, notes=[card]))
    masked = await post("publish", an_order(3, customer={"id": 1, "card": "(masked)"}))
    assert "stands for a masked one" in masked
    assert len(await served.backend.dead_letters(*ROUTE, limit=10)) == 1
    assert "in place of" in await post("publish", an_order(3, customer={"id": 2, "card": card}))
    assert (await published(served))[0]["customer"] == {"id": 2, "card": "4929-1234-5678-9012"}


async def ask_form(served, path: str, form: dict[str, str], headers: dict[str, str]):
    headers = headers | {"Authorization": f"Bearer {secret('admin')}"}
    async with httpx.AsyncClient(base_url=served.url, trust_env=False) as client:
        return await client.post(path, data=form, headers=headers, follow_redirects=True)


async def test_payload_is_changed_as_json_without_javascript(browser_without_javascript, served):
    browser = browser_without_javascript
    items = [{"sku": f"TEA-{number}", "qty": 1} for number in range(200)]
    *_, id = await kill(served.backend, [Dying(an_order(3, items=items, total=1), id="ord_3")])
    await browser.log_in(served.url, secret("admin"))
    await browser.open(f"/publish?dead=orders.created/billing/{id}")
    await browser.fill("json", json.dumps(an_order(3, items=items[:1], customer={"card": 1})))
    await browser.press("Check")
    assert "would be refused" in await browser.text("#verdict")
    await browser.fill("json", json.dumps(an_order(3, items=items[:1])))
    await browser.press_first("input[name=purge]")
    await browser.press(f"Publish in place of {id}")
    assert "in place of dead letter" in await browser.text()
    assert len(await served.backend.dead_letters(*ROUTE, limit=10)) == 1
    await browser.open(f"/publish?dead=orders.created/billing/{id}")
    await browser.press(f"Publish in place of {id}")
    text = await browser.text()
    assert "was accepted before, and purged dead letter" in text
    assert len((await published(served))[0]["items"]) == 1


async def test_texts_of_a_dead_letter_are_shown_as_texts_and_the_page_fits_a_phone(browser, served):
    payload = an_order(3, **{"id": HOSTILE, HOSTILE: HOSTILE})
    ids = await kill(
        served.backend,
        [
            Dying(payload, headers={"x": HOSTILE, f"{HOSTILE}\n": HOSTILE, "abe-cause": HOSTILE}, id=HOSTILE),
            Dying(HOSTILE.encode(), id="malformed"),
        ],
    )
    await browser.log_in(served.url, secret("admin"))
    await browser.messages()
    await browser.set_size("phone")
    for id, theme in zip(ids, ("light", "dark"), strict=True):
        await browser.set_theme(theme)
        await browser.open(f"/publish?dead=orders.created/billing/{id}")
        await browser.press("Check")
        assert await browser.violations() == []
        assert await browser.overflow() <= 0
        assert await browser.run(lambda driver: driver.execute_script("return window.hacked")) is None
    assert "So it is not shown: write the whole payload." in await browser.text()
    assert await browser.messages() == []


async def test_failure_of_the_backend_is_said_and_the_repetition_publishes_once(served, monkeypatch):
    *_, id = await kill(served.backend, [Dying(an_order(3), id="ord_3")])
    path, append_once = f"/publish?dead=orders.created/billing/{id}", served.backend.append_once

    async def lost(windowed):
        await append_once(windowed)
        raise BackendUnavailable("the answer was lost")

    form = {"do": "publish", "json": json.dumps(an_order(3)), "purge": "on"}
    monkeypatch.setattr(served.backend, "append_once", lost)
    answer = await ask_form(served, path, form, {"Origin": served.url})
    assert answer.status_code == 503
    assert "send it again with the same id" in answer.text
    monkeypatch.undo()
    before = len(await served.backend.peek("orders.created", None, limit=1000))
    assert (
        "was accepted before, and purged" in (await ask_form(served, path, form, {"Origin": served.url})).text
    )
    assert len(await served.backend.peek("orders.created", None, limit=1000)) == before


async def test_page_shows_why_it_may_not_be_done(tmp_path):
    async with serving(tmp_path) as served:
        *_, id = await kill(served.backend, [Dying({"total": 1, "card": SECRET})])
        page = (await ask(served, "reader", "GET", f"{LIST}/{id}")).text
        assert "http: {republish: true}" in page
        path = f"/publish?dead=orders.created/billing/{id}"
        assert (await ask(served, "admin", "GET", path)).status_code == 403
        assert served.table.path is not None
        text = served.table.path.read_text().replace("  tokens:", "  republish: true\n  tokens:", 1)
    async with serving(tmp_path, text) as served:
        *_, id = await kill(served.backend, [Dying({"total": 1, "card": SECRET})])
        page = (await ask(served, "reader", "GET", f"{LIST}/{id}")).text
        assert "the token does not have the role publisher for orders.created" in page
        for role in ("reader", "publisher", "operator"):
            assert (await ask(served, role, "GET", path)).status_code == 403
        assert (
            await ask(served, "admin", "GET", "/publish?dead=orders.created/billing/x")
        ).status_code == 404
        assert (await ask(served, "admin", "GET", "/publish?dead=x")).status_code == 400
