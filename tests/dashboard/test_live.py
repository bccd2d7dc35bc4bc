"""What an open page does by itself: figures change, trouble is shown, and nothing grows."""

from __future__ import annotations

import math
import os
import re
import signal

import msgspec
import pytest

from abe_router.http import event_stream, events
from abe_router.http.sessions import SESSIONS
from abe_router.operations import worker_watch
from abe_router.operations.audit import Author
from abe_router.operations.overrides import pause
from abe_router.operations.rate_history import RateHistory
from abe_router.runtime.publish import publish
from tests.http_server.serving import secret
from tests.http_server.test_serve_flow import serving as serving_process
from tests.http_server.test_serve_flow import started

ROW = '[id="orders.paid/ledger"]'
#: How many times as long the long stream is.
LONGER = int(os.environ.get("ABE_ROUTER_LONGER", "1"))


async def script(browser, text, *arguments):
    """Return the value of a script in the page."""
    return await browser.run(lambda driver: driver.execute_script(text, *arguments))


async def test_figures_and_states_change_while_the_page_is_open(browser, shop):
    await browser.log_in(shop.url, secret("viewer"))
    await browser.open("/")
    await browser.messages()
    await browser.fill("q", "half a wor")
    await script(browser, "window.unchanged = true")
    await publish(shop.table, shop.backend, "orders.paid", {"number": 183})
    await browser.until(f"{ROW} [data-cell=backlog]", lambda text: text == "183")
    await browser.until("[data-sum=backlog]", lambda text: text == "220")
    author = Author("ada", "http")
    await pause(shop.table, shop.backend, "orders.created/audit", author=author, why="deploy", patience=0)
    await browser.until('[id="orders.created/audit"]', lambda text: "by ada: deploy" in text)
    order = [text.split("\n")[1] for text in (await browser.texts("tbody tr"))[:5]]
    assert order == ["refunds", "notify-email", "audit", "ledger", "search-index"]
    assert await script(browser, "return [window.unchanged, document.activeElement.value]") == [
        True,
        "half a wor",
    ]
    assert await browser.messages() == []


async def test_keys_move_filter_and_go_to_pages(browser, shop):
    await browser.log_in(shop.url, secret("viewer"))
    await browser.open("/")
    await browser.type_keys("j", "j", "k", "j")
    focused = "return document.activeElement.closest('tr, dialog, form')?.innerText || ''"
    assert "notify-email" in await script(browser, focused)
    await browser.type_keys("?")
    assert "next row" in await browser.text("#keys")
    assert await browser.violations() == []
    await browser.press_key("Escape")
    assert await browser.texts("#keys") == [""]
    await browser.type_keys("/")
    await browser.press_key("users")
    assert await script(browser, "return document.activeElement.value") == "users"
    await browser.press_key("Enter")
    await browser.until("caption b", lambda text: text == "2 of 14 routes")
    await browser.type_keys("g", "r")
    await browser.until("caption b", lambda text: text == "14 routes")


async def test_seven_tabs_cost_one_stream(browser_with_tabs, shop, monkeypatch):
    calls, browser = [], browser_with_tabs
    read = shop.backend.status

    async def counted():
        calls.append(1)
        return await read()

    monkeypatch.setattr(shop.backend, "status", counted)
    await browser.log_in(shop.url, secret("viewer"))
    await browser.open("/")
    for _ in range(6):
        await browser.run(lambda driver: driver.switch_to.new_window("tab"))
        await browser.open("/routes")
    calls.clear()
    await publish(shop.table, shop.backend, "orders.paid", {"number": 183})
    await browser.until(f"{ROW} [data-cell=backlog]", lambda text: text == "183")
    assert shop.server._site.streams.open == 1
    assert len(calls) <= 3


@pytest.mark.timeout(60 * LONGER)
async def test_long_stream_does_not_grow_the_page(browser, shop, monkeypatch):
    """All routes change in each event. With ABE_ROUTER_LONGER=87, there are as many events as in a day."""
    monkeypatch.setattr(events, "EVERY", 0.001)
    monkeypatch.setattr(worker_watch, "SILENT_AFTER", math.inf)  # the workers of this shop report once
    figures, read, sent = RateHistory.figures, events.StateFeed._read, 0

    async def counted(feed):
        nonlocal sent
        sent += 1
        return await read(feed)

    monkeypatch.setattr(events.StateFeed, "_read", counted)
    monkeypatch.setattr(
        RateHistory, "figures", lambda *of: msgspec.structs.replace(figures(*of), rate=1_000 + sent)
    )
    monkeypatch.setitem(type(browser).until.__globals__, "PATIENCE", 60.0 * LONGER)
    await browser.log_in(shop.url, secret("viewer"))
    await browser.open("/")

    async def size_after(changes):
        until = 1_000 + sent + changes
        await browser.until(f"{ROW} [data-cell=rate]", lambda text: int(text.replace(",", "")) > until)
        await browser.command("HeapProfiler.collectGarbage")
        heap = await browser.command("Runtime.getHeapUsage")
        return heap["usedSize"], await script(browser, "return document.querySelectorAll('*').length")

    heap, elements = await size_after(200)
    later_heap, later_elements = await size_after(1_000 * LONGER)
    assert abs(later_elements - elements) < 30, (elements, later_elements)  # states change with time
    # The events would be 4 MB and more. What the browser has not compiled or collected yet is less.
    assert later_heap - heap < 1_500_000, (heap, later_heap)


async def test_open_page_says_that_its_login_has_ended_and_goes_on_after_the_next(browser, shop, monkeypatch):
    monkeypatch.setattr(event_stream, "COMMENT_EVERY", 0.1)
    await browser.log_in(shop.url, secret("viewer"))
    await browser.open("/")
    await browser.until("#summary", lambda text: "all report" in text)
    for name in await shop.backend.entries(SESSIONS):
        await shop.backend.delete(SESSIONS, name)
    shop.server._site.security._sessions._known.clear()
    await browser.until("#connection", lambda text: "The login has ended" in text)
    await browser.press("Log in again")
    await browser.fill("token", secret("viewer"))
    await browser.press("Log in")
    await browser.until("#summary", lambda text: "all report" in text)
    await browser.messages()


async def test_page_shows_what_becomes_of_workers_and_the_server(browser, tmp_path):
    http = "{listen: 127.0.0.1:0, probes: 127.0.0.1:0}"
    async with serving_process(tmp_path, "--workers", "2", http=http) as run:
        address = await run.address()
        await run.ready(address)
        token = run.token()["Authorization"].removeprefix("Bearer ")
        await browser.log_in(address, token)
        await browser.open("/")
        await browser.until("#summary", lambda text: "2 of 2\nall report" in text)
        status = (await run.get(address, "/v1/workers", **run.token())).json()
        pid = next(report["pid"] for report in status.values() if report["number"] == 2)
        os.kill(pid, signal.SIGSTOP)
        await browser.until("#summary", lambda text: "1 of 2" in text and "no word from worker 2 for" in text)
        await browser.until("#routes", lambda text: "no heartbeat from worker 2" in text)
        os.kill(pid, signal.SIGKILL)
        await browser.until("#summary", lambda text: "2 of 2\nall report" in text)
        run.process.kill()
        await browser.until("#connection", lambda text: text.startswith("Disconnected since"))
    port = int(address.rpartition(":")[2])
    routes = tmp_path / "routes.yaml"
    routes.write_text(re.sub(r"listen: 127.0.0.1:0", f"listen: 127.0.0.1:{port}", routes.read_text()))
    async with started(tmp_path) as run:
        await browser.until("#summary", lambda text: "1 of 1\nall report" in text)  # the session goes on
        assert await browser.texts("#connection:not([hidden])") == []
        run.process.terminate()
        assert await run.ended() == 0
        await browser.until("#connection", lambda text: text.startswith("The server ended"))
    await browser.messages()
