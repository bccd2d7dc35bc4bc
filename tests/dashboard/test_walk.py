"""docs/operating.md: every step of the incident, in a browser, on a router with a worker of its own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from abe_router.http.tokens import TOKEN_FILE
from abe_router.testing.redis_server import free_port
from tests.docs.blocks import blocks
from tests.docs.transcript import follow_block, shell_variables
from tests.limits import HANG

PAGE = Path(__file__).parents[2] / "docs" / "operating.md"
ROUTE = "orders.created/billing"


class Shop:
    """The router of the page, followed block by block, and what its API says of the route."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self._blocks = iter(blocks(PAGE))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        return (self.folder / TOKEN_FILE).read_text().strip()

    async def follow(self, number: int) -> None:
        """Do what the next blocks of the page say."""
        for _ in range(number):
            block = next(self._blocks)
            moved = replace(block, text=block.text.replace("8470", str(self.port)))
            await asyncio.to_thread(follow_block, moved, self.folder, shell_variables(ABE_ROUTER_BACKEND=""))

    async def ask(self, path: str) -> Any:
        async with httpx.AsyncClient(trust_env=False, timeout=HANG) as client:
            headers = {"Authorization": f"Bearer {self.token}"}
            return (await client.get(self.url + path, headers=headers)).json()

    async def until(self, condition: Callable[[dict[str, Any]], object]) -> None:
        """Wait until the state of the route satisfies a condition."""
        state: Any = None
        with suppress(TimeoutError):
            async with asyncio.timeout(HANG):
                while True:
                    with suppress(httpx.HTTPError, OSError, KeyError):
                        state = (await self.ask("/v1/status"))["routes"][0]
                        if condition(state):
                            return
                    await asyncio.sleep(0.05)
        raise AssertionError(state)

    def charged(self) -> int:
        return len(set((self.folder / "charged.log").read_text().splitlines()))


@pytest.fixture
def shop(tmp_path: Path):
    yield Shop(tmp_path)
    with suppress(OSError, ValueError):
        os.kill(int((tmp_path / "serve.pid").read_text()), signal.SIGKILL)


@pytest.mark.timeout(180)
async def test_every_step_of_the_incident_works_in_a_browser(browser, shop):
    await shop.follow(3)
    await shop.until(lambda state: state["dead"] == 60)
    await browser.log_in_with_form(shop.url, shop.token)

    # 1. See that a release fails.
    await browser.open("/routes")
    row = await browser.until("tbody tr", lambda text: "60" in text)
    assert "team-billing" in row
    assert await browser.text("tr.is-bad .route a") == "orders.created"

    # 2. Find the fault.
    await browser.press("Dead letters 60", "nav")
    assert await browser.texts("tbody th a") == ["KeyError in shop:charge"]
    assert await browser.texts("tr.is-bad .spark.hot") != []
    await browser.press("KeyError in shop:charge")
    fault = await browser.address()
    await browser.press("KeyError", "tbody")
    assert 'order["total"]' in (await browser.texts("pre .own"))[-1]
    text = await browser.text()
    assert '"amount": 20' in text
    assert "the present file: reaches the handler" in text

    # 3. Pause the route.
    await browser.open(fault)
    await browser.press(f"route {ROUTE}")
    await browser.fill("for", "1h")
    await browser.fill("why", "charge fails")
    await browser.press(f"Pause or limit {ROUTE}", "#act")
    assert "charge fails" in await browser.text("#act")
    await shop.follow(1)
    await shop.until(lambda state: state["ready"] == 10 and state["overrides"])

    # 4. Mend the handler: the worker is replaced.
    async def worker() -> list[int]:
        return [each["pid"] for each in (await shop.ask("/v1/workers")).values() if each]

    before = await worker()
    await shop.follow(1)
    async with asyncio.timeout(HANG):
        while not (now := await worker()) or set(now) & set(before):
            await asyncio.sleep(0.05)
    assert shop.charged() == 0

    # 5. Resume the route.
    await browser.press(f"Resume {ROUTE}", "#act")
    await shop.until(lambda state: state["ready"] == 0 and not state["in_flight"])
    await shop.until(lambda state: state["dead"] == 60 and shop.charged() == 10)

    # 6. Try ten.
    await browser.open(fault)
    await browser.run(lambda driver: driver.find_element("css selector", "[name=first][value='10']").click())
    await browser.press("Dry run of a replay")
    assert "10\nreach the handler" in await browser.text()
    assert (await shop.ask("/v1/status"))["routes"][0]["dead"] == 60
    await browser.press("Replay 10 dead letters")
    progress = await browser.until("#progress", lambda text: "10 have ended" in text)
    assert "0 died again" in progress
    await shop.until(lambda state: state["dead"] == 50 and shop.charged() == 20)

    # 7. Replay the rest.
    await browser.open(fault)
    await browser.run(lambda driver: driver.find_element("css selector", "[name=first][value='']").click())
    await browser.press("Dry run of a replay")
    await browser.fill("rate", "100/s")
    await browser.fill("stop_after", "3")
    await browser.fill("why", "mended")
    await browser.press("Replay 50 dead letters")
    await browser.until("#progress", lambda text: "50 have ended" in text)
    await browser.open("/dead")
    assert "There are no dead letters." in await browser.text()
    await browser.open("/audit")
    audit = await browser.text()
    assert audit.count("dead replay") >= 2
    for text in ("pause", "resume", "charge fails", "mended"):
        assert text in audit
    await shop.follow(1)
