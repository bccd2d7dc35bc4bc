"""The page of one route: what it shows, and what its forms do."""

from __future__ import annotations

import pytest

from abe_router.http.dashboard import one_route
from abe_router.observe.events import Retried
from abe_router.operations.audit import acts
from abe_router.runtime.failures import FAILURES, RecentFailures
from abe_router.runtime.override import read_overrides
from tests.http_server.serving import ask, secret

PAID = "/routes/orders.paid/ledger"


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch):
    monkeypatch.setattr(one_route, "OBEY_PATIENCE", 0.1)  # nothing obeys here


async def overrides_of(shop, route):
    return [each for each in await read_overrides(shop.backend) if each.route == route]


async def test_route_shows_charts_policies_workers_and_failures(browser, shop):
    await browser.log_in(shop.url, secret("admin"))
    await browser.open("/")
    await browser.press("orders.cancelled")
    assert await browser.address() == "/routes/orders.cancelled/refunds"
    text = await browser.text()
    for shown in (
        "% of attempts for 1",
        "owner payments",
        "timeout at 30 s",
        "5 attempts, 200ms × 2, at most 30s, jitter",
        "all 3 dead letters",
    ):
        assert shown in text, shown
    labels = await browser.run(
        lambda driver: driver.execute_script(
            "return [...document.querySelectorAll('.chart[role=img]')].map(each => each.ariaLabel)"
        )
    )
    assert len(labels) == 4
    assert labels[0].startswith("Handled messages and failed attempts a second over the last hour")
    assert len(await browser.texts("#workers tbody tr")) == 4
    assert len(await browser.texts("#failures details")) == 3
    await browser.press_first("#failures summary")
    assert "gateway.refund(order)" in await browser.text("#failures details[open] pre")


async def test_failures_that_wait_for_a_retry_are_shown_to_readers_alone(browser, shop):
    hostile = "<script>window.hacked=1</script>"
    recent = RecentFailures()
    recent.on_event(
        Retried(
            *("orders.paid/ledger", hostile, hostile, 2, 30.0, hostile, hostile), f"Traceback of {hostile}"
        )
    )
    await shop.backend.put(FAILURES, "worker-1", recent.take(), ttl=600)
    api = "/v1/routes/orders.paid/ledger/failures"
    assert (await ask(shop, "viewer", "GET", api)).status_code == 403
    assert "Traceback" not in (await ask(shop, "viewer", "GET", PAID)).text
    (failed,) = (await ask(shop, "reader", "GET", api)).json()
    assert (failed["attempt"], failed["delay"]) == (2, 30.0)
    await browser.log_in(shop.url, secret("reader"))
    await browser.open(PAID)
    await browser.press_first("#failures summary")
    text = await browser.text("#failures details[open]")
    assert f"Traceback of {hostile}" in text
    assert "attempt 2 failed, the next one 30 s later" in text
    assert await browser.run(lambda driver: driver.execute_script("return window.hacked")) is None


async def test_pause_limit_and_resume_with_a_reason_and_an_end(browser, shop):
    await browser.log_in(shop.url, secret("operator"))
    await browser.open("/routes/users.deleted/erase")
    await browser.fill("why", "the law changes")
    await browser.fill("for", "40m")
    await browser.press("Pause or limit users.deleted/erase")
    assert "by operator: the law changes" in await browser.text("#notice")
    (override,) = await overrides_of(shop, "users.deleted/erase")
    assert (override.action, override.seconds, override.author) == ("pause", 2400, "operator")
    assert "paused until" in await browser.text("#head")

    await browser.press("Resume users.deleted/erase")
    assert "no longer paused" in await browser.text("#notice")
    assert await overrides_of(shop, "users.deleted/erase") == []

    await browser.press_first("[value=limit]")
    await browser.fill("rate", "90/m")
    await browser.fill("why", "quota")
    await browser.press("Pause or limit users.deleted/erase")
    (override,) = await overrides_of(shop, "users.deleted/erase")
    assert (override.action, override.rate, override.why) == ("limit", 1.5, "quota")
    assert [act.action for act in await acts(shop.backend)] == ["limit", "resume", "pause"]


async def test_form_keeps_what_was_typed_when_it_is_refused(browser, shop):
    await browser.log_in(shop.url, secret("operator"))
    await browser.open("/routes/users.deleted/erase")
    await browser.fill("why", "the law changes")
    await browser.fill("for", "forty minutes")
    await browser.press("Pause or limit users.deleted/erase")
    assert "`forty minutes` is not a duration" in await browser.text("[role=alert]")
    typed = "return document.querySelector('#act [name=why]').value"
    assert await browser.run(lambda driver: driver.execute_script(typed)) == "the law changes"
    await browser.fill("for", "8d")
    await browser.press("Pause or limit users.deleted/erase")
    assert "at most 7d" in await browser.text("[role=alert]")
    assert await overrides_of(shop, "users.deleted/erase") == []


async def test_forms_work_without_javascript(browser_without_javascript, shop):
    browser = browser_without_javascript
    await browser.log_in(shop.url, secret("operator"))
    await browser.open("/")
    await browser.press("Dead")
    await browser.press("orders.paid")
    await browser.press("Resume orders.paid/ledger")
    assert "no longer paused" in await browser.text("#notice")
    assert await overrides_of(shop, "orders.paid/ledger") == []
    assert await browser.texts("[data-opens]") == [""]


async def test_viewer_sees_why_it_may_not_act_and_no_failure(browser, shop):
    await browser.log_in(shop.url, secret("viewer"))
    await browser.open(PAID)
    buttons = "return [...document.querySelectorAll('#act button')].map(each => [each.disabled, each.title])"
    found = await browser.run(lambda driver: driver.execute_script(buttons))
    assert found == [[True, "the token does not have the role operator"]] * 2
    assert "needs the role operator" in await browser.text("#act")
    await browser.open("/routes/orders.cancelled/refunds")
    assert "gateway" not in await browser.text("#failures")
    assert "The token may not read messages" in await browser.text("#failures")


async def test_removed_route_is_dropped_after_a_question(browser, shop):
    await (await shop.backend.subscribe("former.key", "old")).close()
    await browser.log_in(shop.url, secret("admin"))
    await browser.open("/routes/former.key/old")
    assert "The routes file does not have this route." in await browser.text()
    await browser.press("Drop former.key/old…")
    await browser.press("Drop former.key/old")
    assert "former.key/old was dropped" in await browser.text("#notice")
    assert all(each.pattern != "former.key" for each in await shop.backend.status())


async def test_unknown_route_is_not_found(browser, shop):
    await browser.log_in(shop.url, secret("viewer"))
    await browser.open("/routes/no.such/route")
    assert "there is no route no.such/route" in await browser.text()


@pytest.mark.long  # test_pictures.py looks at each page in each run
async def test_page_of_a_route_fits_a_phone_and_has_no_violations(browser, shop):
    await browser.set_size("phone")
    await browser.log_in(shop.url, secret("operator"))
    for theme in ("light", "dark"):
        await browser.set_theme(theme)
        await browser.open("/routes/orders.cancelled/refunds")
        assert await browser.violations() == []
        assert await browser.overflow() == 0
