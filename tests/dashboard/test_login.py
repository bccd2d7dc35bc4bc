"""How a browser gets in: with a token, with the link of the start, and not otherwise."""

from __future__ import annotations

import pytest

from tests.http_server.serving import secret, serving


@pytest.fixture
async def served(tmp_path):
    async with serving(tmp_path) as found:
        yield found


async def test_page_without_a_login_asks_for_a_token(browser, served):
    await browser.log_in(served.url, "no-such-token")
    assert "the token is unknown" in await browser.text()
    await browser.open("/permissions")
    assert await browser.address() == "/login"


async def test_permissions_name_the_token_and_what_it_allows(browser, served):
    await browser.log_in(served.url, secret("operator"))
    await browser.open("/permissions")
    await browser.messages()
    await browser.open("/permissions")
    rows = await browser.texts("tbody tr")
    assert [row.endswith("yes") for row in rows] == [True, False, False, True, False]
    assert await browser.violations() == []
    assert await browser.messages() == []
