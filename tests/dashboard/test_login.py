"""How a browser gets in: with a token, with the link of the start, and not otherwise."""

from __future__ import annotations

import pytest

from abe_router.errors import BackendUnavailable
from abe_router.http.sessions import SESSIONS
from tests.http_server.serving import secret, serving


@pytest.fixture
async def served(tmp_path):
    async with serving(tmp_path) as found:
        yield found


async def test_page_without_a_login_asks_for_a_token(browser, served):
    await browser.log_in_with_form(served.url, "no-such-token")
    assert "the token is unknown" in await browser.text()
    await browser.open("/permissions")
    assert await browser.address() == "/login?back=%2Fpermissions"


async def test_login_opens_the_page_that_was_asked_for(browser, served):
    await browser.log_in_with_form(served.url, "no-such-token")
    await browser.open("/edits?state=rejected")
    await browser.fill("token", secret("viewer"))
    await browser.press("Log in")
    assert await browser.address() == "/edits?state=rejected"
    await browser.open("/login?back=//example.com/")
    await browser.fill("token", secret("publisher"))
    await browser.press("Log in")
    assert await browser.address() == "/publish"  # the first page that the token allows


async def test_link_of_the_start_logs_in_one_browser_once(browser, served):
    code = served.server._site.security.login_code
    await browser.log_in_with_form(served.url, "no-such-token")
    await browser.open(f"/login?code={code}")
    await browser.press("Log in")
    await browser.open("/permissions")
    assert await browser.texts("main h1") == ["Your permissions"]
    await browser.press("Log out")
    await browser.open(f"/login?code={code}")
    await browser.press("Log in")
    assert "the link was used before" in await browser.text()


async def test_ended_session_asks_again_and_returns_to_the_page(browser, served):
    await browser.log_in_with_form(served.url, secret("operator"))
    await browser.open("/audit?q=pause")
    security = served.server._site.security
    tokens = security._tokens
    security.update([token for token in tokens if token.caller.name != "operator"])
    await browser.open("/audit?q=pause")
    assert "The session has ended" in await browser.text()
    security.update(tokens)
    security._sessions._known.clear()
    for name in await served.backend.entries(SESSIONS):
        await served.backend.delete(SESSIONS, name)
    await browser.open("/audit?q=pause")
    assert "The session has ended" in await browser.text()
    await browser.fill("token", secret("operator"))
    await browser.press("Log in")
    assert await browser.address() == "/audit?q=pause"


async def test_theme_is_kept_by_the_server_and_keeps_the_page(browser, served):
    await browser.log_in_with_form(served.url, secret("operator"))
    await browser.open("/audit?q=pause")
    await browser.press("dark")
    assert await browser.address() == "/audit?q=pause"
    assert await browser.texts("html[data-theme=dark] [aria-pressed=true]") == ["dark"]
    await browser.press("system")
    assert await browser.texts("html:not([data-theme]) [aria-pressed=true]") == ["system"]


async def test_errors_are_pages_that_say_what_to_do(browser, served):
    await browser.log_in_with_form(served.url, secret("viewer"))
    await browser.open("/nowhere")
    assert await browser.texts("main h1") == ["Not found"]
    await browser.open("/audit")
    text = await browser.text()
    assert "403 the request needs the role operator" in text
    assert "Ask for a token with this role" in text

    async def fail(*_: object) -> None:
        raise BackendUnavailable("redis://cache:6379 refused the connection")

    served.backend.entries = fail
    await browser.open("/edits?q=1")
    assert "The edits cannot be read." in await browser.text()
    await browser.open("/edits/1?diff=2")
    text = await browser.text()
    assert "503 redis://cache:6379 refused the connection" in text
    assert "Nothing is lost" in text
    del served.backend.entries
    await browser.press("Try again")
    assert await browser.address() == "/edits/1?diff=2"
    await browser.messages()
