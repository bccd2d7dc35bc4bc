"""Replays and purges in the dashboard: each action is clicked, and its effect read from the backend."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from abe_router.errors import BackendUnavailable
from abe_router.operations.audit import acts
from abe_router.operations.replay import REPLAYS, Replay, replays
from tests.http_server.serving import SECRET, ask, secret, serving
from tests.limits import HANG

from .letters import INVALID, ROUTE, Dying, kill

LIST = "/dead/orders.created/billing"
HOSTILE = '"><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'


@pytest.fixture
async def served(tmp_path):
    async with serving(tmp_path) as found:
        await kill(found.backend, [Dying({"total": number, "card": SECRET}) for number in range(12)])
        yield found


async def counts(served):
    """Return how many messages of the route are ready, and how many dead."""
    (status,) = [each for each in await served.backend.status() if each.group == "billing"]
    return status.ready, status.dead


async def settled(served, condition):
    """Return the newest replay once it satisfies a condition."""
    async with asyncio.timeout(HANG):
        while not (found := (await replays(served.backend))[:1]) or not condition(found[0]):
            await asyncio.sleep(0.02)
    return found[0]


async def test_the_first_one_is_replayed_after_a_dry_run(browser, served):
    await browser.log_in(served.url, secret("admin"))
    await browser.open(LIST)
    await browser.press("Dry run of a replay")
    assert await browser.address() == f"{LIST}/replay?first=1"
    text = await browser.text()
    assert "Replay 1 dead letter\n" in text
    assert "1\nreach the handler\n0\nstill invalid" in text
    assert await counts(served) == (0, 12)
    await browser.fill("rate", "")
    await browser.fill("stop_after", "")
    await browser.fill("why", "mended in 7c1e4d0")
    await browser.press("Replay 1 dead letter")
    assert "Replay 1 of 1 dead letter has started." in await browser.text()
    await settled(served, lambda replay: replay.position == 1)
    assert await counts(served) == (1, 11)
    await browser.open("/replays/1")
    text = await browser.until("main", lambda text: "1 of 1 moved" in text)
    assert "0 have ended · 1 still wait or run" in text
    (delivery,) = await (await served.backend.subscribe(*ROUTE)).fetch(1, HANG)
    assert delivery.message.body.startswith(b'{"total":0')
    replay = (await replays(served.backend))[0]
    assert (replay.why, replay.author, replay.wait) == ("mended in 7c1e4d0", "admin", True)


async def test_a_form_replays_only_what_its_dry_run_showed_and_only_once(browser, served):
    await browser.log_in(served.url, secret("operator"))
    await browser.open(f"{LIST}/replay?kind=failed&first=")
    assert "needs the role reader" in await browser.text()
    await kill(served.backend, [Dying({"total": 99})])
    await browser.fill("stop_after", "2")
    await browser.fill("rate", "a few")
    await browser.press("Replay 12 dead letters")
    assert "`a few` is not a rate" in await browser.text()
    await browser.fill("rate", "")
    await browser.fill("stop_after", "2")
    await browser.press("Replay 12 dead letters")
    assert "needs a rate" in await browser.text()
    await browser.fill("stop_after", "")
    name = await browser.run(
        lambda driver: driver.find_element("css selector", "[name=selection]").get_attribute("value")
    )
    await browser.press("Replay 12 dead letters")
    assert (await settled(served, lambda replay: replay.position == replay.total)).total == 12
    for role, status in (("viewer", 403), ("operator", 409)):
        answer = await ask(served, role, "POST", f"{LIST}/replay", data={"selection": name})
        assert answer.status_code == status
    assert "no longer kept" in answer.text
    assert len(await replays(served.backend)) == 1
    assert await counts(served) == (12, 1)


async def test_selected_rows_are_replayed(browser, served):
    await browser.log_in(served.url, secret("operator"))
    await browser.open(f"{LIST}?sort=first")
    for at in (1, 3):
        await browser.run(lambda driver, at=at: driver.find_elements("css selector", "[name=id]")[at].click())
    await browser.run(lambda driver: driver.find_elements("css selector", "[name=first]")[2].click())
    await browser.press("Dry run of a replay")
    assert await browser.address() == f"{LIST}/replay?first=&id=2&id=4"
    await browser.press("Replay 2 dead letters")
    await settled(served, lambda replay: replay.position == 2)
    left = [each.id for each in await served.backend.dead_letters(*ROUTE)]
    assert len(left) == 10
    assert {"2", "4"}.isdisjoint(left)


async def test_a_replay_at_a_rate_is_stopped_and_continued(browser, served):
    await browser.log_in(served.url, secret("operator"))
    await browser.open(f"{LIST}/replay")
    await browser.fill("rate", "60/m")
    await browser.fill("stop_after", "1")
    await browser.press("Replay 12 dead letters")
    assert await browser.address() != "/replays/1"
    assert "12 dead letters" in await browser.text()
    await browser.open("/dead")
    await browser.press("See replay 1")
    await browser.press("Stop replay 1")
    stopped = await settled(served, lambda replay: replay.state == "stopped")
    assert "Replay 1 is stopped" in await browser.text()
    assert stopped.position < 12
    await browser.open("/replays?state=stopped")
    await browser.press("1", "tbody")
    await browser.press("Continue replay 1")
    assert (await settled(served, lambda replay: replay.state == "running")).total == 12
    await browser.press("Stop replay 1")
    await settled(served, lambda replay: replay.state == "stopped")
    assert [act.action for act in await acts(served.backend)][-1:] == ["dead replay stop"]


async def test_a_purge_names_the_number_and_is_recorded(browser, served):
    await kill(served.backend, [Dying({}, INVALID)] * 3)
    await browser.log_in(served.url, secret("operator"))
    await browser.open(f"{LIST}?kind=invalid")
    await browser.run(lambda driver: driver.find_elements("css selector", "[name=first]")[2].click())
    await browser.press("Purge…")
    assert await browser.address() == f"{LIST}/purge?kind=invalid&first="
    assert await counts(served) == (0, 15)
    await browser.fill("why", "a test")
    await browser.press("Purge 3 dead letters")
    assert "Purged 3 dead letters." in await browser.text()
    assert await counts(served) == (0, 12)
    (act,) = await acts(served.backend)
    assert (act.action, act.why, act.author) == ("dead purge", "a test", "operator")
    await browser.open("/dead")
    assert "12 in 1 group" in await browser.text()


async def test_everything_works_without_scripts(browser_without_javascript, served):
    browser = browser_without_javascript
    await browser.log_in(served.url, secret("admin"))
    await browser.open("/dead")
    await browser.press("KeyError in shop.billing:charge")
    await browser.press("KeyError", "tbody")
    await browser.press("Dry run: replay this one")
    await browser.press("Replay 1 dead letter")
    await settled(served, lambda replay: replay.position == 1)
    assert await counts(served) == (1, 11)


async def test_who_may_only_look_sees_why_and_hostile_texts_are_texts(browser, served):
    await browser.log_in(served.url, secret("admin"))
    await browser.open(f"{LIST}/replay?first=1")
    await browser.fill("why", HOSTILE)
    await browser.fill("rate", "1/h")
    await browser.press("Replay 1 dead letter")
    await browser.log_in(served.url, secret("viewer"))
    await browser.messages()
    await browser.set_size("phone")
    await browser.set_theme("dark")
    for path in ("/replays", "/replays/1"):
        await browser.open(path)
        assert HOSTILE in await browser.text(), path
        assert await browser.run(lambda driver: driver.execute_script("return window.hacked")) is None
        assert await browser.violations() == [], path
        assert await browser.overflow() <= 0, path
    assert "needs the role operator" in await browser.text()
    assert await browser.texts("main button[disabled]") == ["Stop replay 1"]
    assert await browser.messages() == []


async def test_a_replay_that_is_silent_may_be_continued(served):
    record = Replay(1, "/".join(ROUTE), "ada", "command line", "", 12, 1e9, time.time() - 60, position=4)
    await served.backend.put(REPLAYS, "1", msgspec.json.encode(record))
    page = (await ask(served, "operator", "GET", "/replays/1")).text
    assert "No word from it for 1 <small>min</small>." in page
    assert "Continue replay 1" in page
    assert '<b class="warn">silent</b>' in (await ask(served, "viewer", "GET", "/replays")).text
    assert (await ask(served, "viewer", "POST", "/replays/1/continue")).status_code == 403
    limited = (await ask(served, "orders-viewer", "GET", "/replays/1")).status_code
    assert (limited, (await ask(served, "viewer", "GET", "/replays/2")).status_code) == (200, 404)


async def test_the_list_of_replays_says_that_the_backend_is_away(served, monkeypatch):
    async def away(*_: object) -> None:
        raise BackendUnavailable("connection refused")

    monkeypatch.setattr(served.backend, "entries", away)
    answer = await ask(served, "viewer", "GET", "/replays")
    assert answer.status_code == 200
    assert "The backend does not answer: connection refused" in answer.text
