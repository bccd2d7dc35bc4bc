"""The page of the live tail: what is stored, what comes, what is filtered, and what a viewer sees."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from unittest.mock import patch

from abe_router.errors import BackendUnavailable
from abe_router.operations import tail
from abe_router.operations.tail import newest
from abe_router.runtime.publish import publish
from tests.http_server.serving import SECRET, secret
from tests.limits import HANG

from .shop import an_order, shop

HOSTILE = "</td><script>window.hacked=1</script>\"'><img src=x onerror=window.hacked=1>\u202etxt"


async def send(served, number: int, **changes: object) -> None:
    headers = {"x-note": HOSTILE}
    await publish(
        served.table, served.backend, "orders.created", an_order(number, **changes), headers=headers
    )


async def click_stop(browser) -> None:
    """Click the button that stops the stream, and goes on with it."""
    await browser.run(lambda driver: driver.find_element("id", "tail-stop").click())


async def test_message_appears_without_a_reload_and_stops_with_the_tail(browser, served):
    await browser.log_in(served.url, secret("reader"))
    await browser.open("/tail?pattern=orders.%23&where=/id=ord_8")
    await browser.until("#tail-state", lambda text: text == "live")
    assert "No stored message fits the filter" in await browser.text()
    await send(served, 9)
    await send(served, 8, meta=12345678901234567890)
    row = await browser.until("tbody tr", lambda text: "ord_8" in text)
    assert "12345678901234567890" in row
    assert await browser.texts("tbody th") == ["orders.created\nord_8"]
    await click_stop(browser)
    assert await browser.text("#tail-state") == "stopped"
    await send(served, 80, id="ord_8", total=1.5)
    await click_stop(browser)  # the message is a duplicate, and was not stored
    await browser.until("#tail-state", lambda text: text == "live")
    assert len(await browser.texts("tbody tr")) == 1
    await browser.messages()


async def test_tail_without_javascript_shows_the_newest_and_reloads(browser_without_javascript, served):
    browser = browser_without_javascript
    await browser.log_in(served.url, secret("reader"))
    await browser.open("/tail")
    assert [text.split("\n")[1] for text in await browser.texts("tbody th")][:2] == ["ord_7", "ord_6"]
    assert SECRET not in await browser.text()
    assert "(masked)" in await browser.text("tbody tr")
    await send(served, 8)
    await browser.press("reload")
    assert (await browser.texts("tbody th"))[0] == "orders.created\nord_8"
    await browser.open("/tail?where=total")
    assert "total is not POINTER=JSON" in await browser.text()


async def test_viewer_sees_no_payload_and_no_filter_on_payloads(browser, served):
    await browser.log_in(served.url, secret("orders-viewer"))
    await browser.open("/tail")
    await browser.until("#tail-state", lambda text: text == "live")
    await send(served, 8)
    row = await browser.until("tbody tr", lambda text: "ord_8" in text)
    text = await browser.text()
    assert "not shown" in row
    assert "does not have the role reader for these keys" in text
    assert "TEA-100" not in text
    assert await browser.texts("input[name=where]:not([disabled])") == []
    await browser.open("/tail?pattern=stock.low")
    assert "The token does not allow this" in await browser.text()
    await browser.messages()


async def test_texts_of_messages_are_shown_as_text_before_and_after_the_stream_begins(browser, served):
    await send(served, 8, meta={HOSTILE: HOSTILE})
    await browser.log_in(served.url, secret("admin"))
    await browser.open("/tail")
    await browser.until("#tail-state", lambda text: text == "live")
    await send(served, 9, notes=[HOSTILE])
    await browser.until("tbody tr", lambda text: "ord_9" in text)
    opened = "document.querySelectorAll('tbody details').forEach((each) => { each.open = true })"
    await browser.run(lambda driver: driver.execute_script(opened))
    for number in (1, 2):
        text = await browser.text(f"tbody tr:nth-child({number})")
        assert "<img src=x onerror=window.hacked=1>" in text
        assert "x-note: </td><script>" in text
        assert "\\u202etxt" in text
    assert await browser.run(lambda driver: driver.execute_script("return window.hacked")) is None
    await browser.messages()


async def test_tail_says_that_the_stream_has_ended_and_why(browser, served):
    await browser.log_in(served.url, secret("reader"))
    await browser.open("/tail")
    await browser.until("#tail-state", lambda text: text == "live")

    async def fail(*_: object, **__: object) -> None:
        raise BackendUnavailable("redis://cache refused the connection")

    served.backend.peek = fail
    await browser.until("#tail-state", lambda text: "redis://cache refused the connection" in text)
    await browser.open("/tail")
    assert "The tail cannot be read. redis://cache refused the connection" in await browser.text()
    del served.backend.peek
    await browser.press("Show all messages")
    await browser.until("#tail-state", lambda text: text == "live")
    served.server._site.closing.set()
    await browser.until("#tail-state", lambda text: "the server ends" in text)
    await browser.messages()


async def test_server_ends_soon_while_a_tail_is_open(browser, tmp_path):
    async with AsyncExitStack() as running:
        served = await running.enter_async_context(shop(tmp_path))
        await browser.log_in(served.url, secret("reader"))
        await browser.open("/tail")
        await browser.until("#tail-state", lambda text: text == "live")
        async with asyncio.timeout(HANG):
            await running.aclose()
    await browser.until("#tail-state", lambda text: "the server ends" in text)
    await browser.messages()


async def test_newest_messages_are_found_from_any_number_up_to_a_thousand(served):
    for number in range(8, 130):
        await send(served, number)
    table, backend = served.table, served.backend
    found = await newest(backend, table, "orders.created", limit=50)
    assert [each.id for each in found.messages] == [f"ord_{number}" for number in range(80, 130)]
    assert not found.skipped
    await send(served, 130)
    later = await newest(backend, table, "orders.created", limit=50, after=found.after)
    assert [each.id for each in later.messages] == [f"ord_{number}" for number in range(81, 131)]
    only = await newest(backend, table, "orders.created", where={"/id": "ord_9"})
    assert ([each.id for each in only.messages], only.after != "") == (["ord_9"], True)
    none = await newest(backend, table, "orders.created", where={"/id": "ord_999"})
    assert (none.messages, none.after) == ([], "")
    with patch.object(tail, "NEWEST_PAGES", 0):
        many = await newest(backend, table, "orders.created")
    assert (many.messages, many.skipped) == ((), True)
    await send(served, 131)
    (new,) = (await newest(backend, table, "orders.created", after=many.after)).messages
    assert new.id == "ord_131"
