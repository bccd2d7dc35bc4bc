"""The page of all routes."""

from __future__ import annotations

import re

import pytest

from abe_router.errors import BackendUnavailable
from tests.dashboard import busy
from tests.http_server.serving import secret


async def test_routes_are_listed_with_trouble_first(browser, shop):
    await browser.log_in(shop.url, secret("viewer"))
    await browser.open("/")
    assert await browser.address() == "/routes"
    rows = await browser.texts("tbody tr")
    assert len(rows) == len(busy.SHOP)
    assert re.search(r"failing\n6[0-9]% of attempts for 1[0-9]m", rows[0])
    assert "limited to 50/s until" in rows[1]
    assert "by ops: mail provider quota" in rows[1]
    assert "paused until" in rows[2]
    assert "by ops: gateway down" in rows[2]
    assert " 182 " in rows[2]
    assert all("running" in row for row in rows[3:])
    assert "4 of 4" in await browser.text("#summary")
    assert "182 of them paused" in await browser.text("#summary")


async def test_filter_and_order_are_in_the_address(browser, shop):
    await browser.log_in(shop.url, secret("viewer"))
    await browser.open("/")
    await browser.press("Backlog")
    assert (await browser.texts("tbody th"))[0] == "orders.paid\nledger"
    await browser.press("Backlog ↓")
    assert (await browser.texts("tbody th"))[-1] == "orders.paid\nledger"
    await browser.fill("q", "owner:billing orders")
    await browser.submit("q")
    assert await browser.address() == "/routes?q=owner%3Abilling+orders&sort=backlog&order=asc"
    assert await browser.texts("tbody th") == ["orders.created\nbilling", "orders.paid\nledger"]
    await browser.open("/routes?q=state:failing")
    assert await browser.texts("tbody th") == ["orders.cancelled\nrefunds"]
    await browser.open("/routes?q=no-such-route")
    assert "No route matches the filter" in await browser.text("tbody")


async def test_page_shows_the_last_figures_while_the_backend_is_away(browser, shop, monkeypatch):
    await browser.log_in(shop.url, secret("viewer"))
    await browser.open("/")

    async def status():
        raise BackendUnavailable("connection refused")

    monkeypatch.setattr(shop.server._site.sampler, "_status", status)
    await browser.open("/routes")
    text = await browser.text()
    assert "The backend does not answer." in text
    assert "182" in text


async def test_token_of_some_keys_sees_its_routes_alone(browser, shop):
    await browser.log_in(shop.url, secret("orders-viewer"))
    await browser.open("/")
    assert {text.partition(".")[0] for text in await browser.texts("tbody th")} == {"orders"}
    assert "Workers" not in await browser.text("#summary")


@pytest.mark.long  # test_pictures.py looks at each page in each run
async def test_page_fits_a_phone_and_has_no_violations(browser, shop):
    await browser.set_size("phone")
    await browser.log_in(shop.url, secret("admin"))
    for theme in ("light", "dark"):
        await browser.set_theme(theme)
        assert await browser.violations() == []
        assert await browser.overflow() == 0
    await browser.messages()
