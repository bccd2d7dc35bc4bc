"""The pages of dead letters: groups, list, one, and what each role may do there."""

from __future__ import annotations

import asyncio

import pytest

from abe_router.backend import Reason
from abe_router.errors import BackendUnavailable
from abe_router.http.dashboard import dead, dead_view
from abe_router.http.dashboard.payload import payload_view
from abe_router.operations import dead_index
from tests.http_server.serving import SECRET, ask, secret, serving

from .letters import INVALID, ROUTE, Dying, kill

LIST = "/dead/orders.created/billing"
HOSTILE = '"><img src=x onerror="window.hacked=1"><script>window.hacked=1</script> javascript:window.hacked=1'


@pytest.fixture
async def served(tmp_path):
    async with serving(tmp_path) as found:
        yield found


@pytest.fixture
async def letters(served):
    """Return the ids of three dead letters of two faults, oldest first, one of which is invalid."""
    cause = {"abe-cause": "cause-of-it", "abe-hops": "1", "x-tenant": "eu-1"}
    return await kill(
        served.backend,
        [
            Dying({"total": 3, "card": SECRET}, ago=7200, id="first", revision="aaaa"),
            Dying({"total": -1, "card": SECRET, "items": [1, 2]}, INVALID, cause, ago=50, id="second"),
            Dying({"total": 5}, ago=40, attempts=4, id="third"),
        ],
    )


async def test_groups_are_sorted_filtered_and_lead_to_their_dead_letters(browser, served, letters):
    await kill(
        served.backend, [Dying({}, Reason("timeout", "TimeoutError", "30s"))], ("payments.made", "audit")
    )
    await browser.log_in(served.url, secret("reader"))
    await browser.open("/dead")
    assert "4 in 3 groups" in await browser.text()
    faults = "tbody th a"
    assert await browser.texts(faults) == ["KeyError in shop.billing:charge", "minimum at /total", "timeout"]
    await browser.press("Count")
    assert await browser.address() == "/dead?sort=count"
    assert (await browser.texts(faults))[0] == "KeyError in shop.billing:charge"
    await browser.fill("q", "payments time")
    await browser.press("Filter")
    assert await browser.address() == "/dead?q=payments+time&sort=count"
    assert await browser.texts(faults) == ["timeout"]
    await browser.open("/dead?q=charge")
    await browser.press("KeyError in shop.billing:charge")
    assert (await browser.address()).startswith(f"{LIST}?group=v1-")
    assert "2 fit the filter" in await browser.text()


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("message_id=second", ["second"]),
        ("kind=invalid", ["second"]),
        ("key=orders.*", ["third", "second", "first"]),
        ("key=other", []),
        ("since=1h", ["third", "second"]),
        ("until=1h", ["first"]),
        ("revision=aa", ["first"]),
        ("sort=first", ["first", "second", "third"]),
        ("payload=/total=5", ["third"]),
        ("payload=/items/1=2&since=1h", ["second"]),
        ("payload=/card=4929-1234-5678-9012", []),
    ],
)
async def test_a_list_shows_what_its_address_says(served, letters, condition, found):
    text = (await ask(served, "reader", "GET", f"{LIST}?{condition}")).text
    shown = sorted((text.find(f"<code>{id}</code>"), id) for id in ("first", "second", "third"))
    assert [id for at, id in shown if at >= 0] == found


async def test_a_search_of_payloads_is_bounded_and_needs_the_right_to_see_them(served, letters, monkeypatch):
    found = (await ask(served, "admin", "GET", f"{LIST}/replay?payload=/total=5&first=")).text
    assert "Replay 1 dead letter" in found
    for text, problem in (("total", "is not POINTER=JSON"), ("total=5", "has no JSON pointer")):
        assert problem in (await ask(served, "reader", "GET", f"{LIST}?payload={text}")).text
    assert (await ask(served, "operator", "GET", f"{LIST}/replay?payload=/total=5")).status_code == 403
    listed = (await ask(served, "viewer", "GET", f"{LIST}?payload=/total=5")).text
    assert "needs the role reader." in listed
    assert "<code>third</code>" not in listed
    monkeypatch.setattr(dead_view, "SEARCHED", 2)
    listed = (await ask(served, "reader", "GET", f"{LIST}?payload=/total=3")).text
    assert "Only the 2 newest payloads were searched." in listed


async def test_a_list_has_parts(browser, served, letters, monkeypatch):
    monkeypatch.setattr(dead, "LETTERS", 2)
    await browser.log_in(served.url, secret("operator"))
    await browser.open(LIST)
    assert await browser.texts("tbody code") == ["third", "3fa90b2c11d0", "second", "3fa90b2c11d0"]
    await browser.press("Next")
    assert await browser.address() == f"{LIST}?page=2"
    assert await browser.texts("tbody code") == ["first", "aaaa"]


async def test_one_dead_letter_shows_where_it_fails_and_where_it_came_from(browser, served, letters):
    await kill(served.backend, [Dying({}, id="cause-of-it")], ("payments.made", "audit"))
    await browser.log_in(served.url, secret("reader"))
    await browser.open(f"{LIST}/{letters[1]}?since=1h")
    assert await browser.texts("pre mark") == ['  "total": -1,    ✕ expected at least 0, found -1']
    assert '"card": "••••••"' in await browser.text("pre")
    text = await browser.text()
    assert "1 of 2" in text
    assert "the present file: still refused" in text
    assert "x-tenant\neu-1" in text
    assert SECRET not in text
    await browser.press("payments.made/audit")
    assert "cause-of-it" in await browser.text()
    await browser.open(f"{LIST}/{letters[1]}?since=1h")
    await browser.press("next")
    assert await browser.address() == f"{LIST}/{letters[2]}?since=1h"
    assert await browser.texts("pre .own") == [
        '  File "/srv/shop/billing.py", line 57, in charge\n    return total(order)'
    ]
    text = await browser.text()
    assert "the present file: reaches the handler" in text
    assert "4 attempts" in text
    assert "2 more failed" in text


async def test_a_viewer_sees_neither_payloads_nor_texts_and_may_do_nothing(browser, served, letters):
    await browser.log_in(served.url, secret("viewer"))
    for path in ("/dead", LIST):
        await browser.open(path)
        text = await browser.text()
        assert "KeyError" in text
        assert "'total'" not in text
    assert "need the role operator" in text
    disabled = "button[disabled], fieldset[disabled], input[type=checkbox][disabled]"
    assert len(await browser.texts(disabled)) == 6
    await browser.open(f"{LIST}/{letters[0]}")
    assert "reader" in await browser.text()
    for act in ("replay", "purge"):
        assert (await ask(served, "viewer", "GET", f"{LIST}/{act}")).status_code == 403
        other = "/dead/payments.made/audit"
        assert (await ask(served, "orders-operator", "GET", f"{other}/{act}")).status_code == 403


async def test_hostile_texts_are_shown_as_texts(browser, served):
    reason = Reason("failed", HOSTILE, HOSTILE, f"{HOSTILE}\n  {HOSTILE}", HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    invalid = Reason("invalid", "PayloadInvalid", HOSTILE, pointer=f"/{HOSTILE}", keyword=HOSTILE)
    headers = {"abe-cause": HOSTILE, "abe-hops": HOSTILE, "x-hostile": HOSTILE, "traceparent": HOSTILE}
    ids = await kill(
        served.backend,
        [
            Dying({HOSTILE: HOSTILE}, reason, headers, id=HOSTILE, revision=HOSTILE),
            Dying({HOSTILE: [HOSTILE]}, invalid, headers, id=f"2{HOSTILE}"),
            Dying(HOSTILE.encode(), Reason("malformed", HOSTILE, HOSTILE), headers, id=f"3{HOSTILE}"),
        ],
    )
    await browser.log_in(served.url, secret("admin"))
    await browser.messages()
    for path in ("/dead", LIST, *(f"{LIST}/{id}" for id in ids), f"{LIST}/replay", f"{LIST}/purge"):
        await browser.open(path)
        assert "<script>window.hacked=1</script>" in await browser.text(), path
        assert await browser.run(lambda driver: driver.execute_script("return window.hacked")) is None, path
        links = await browser.run(
            lambda driver: driver.execute_script("return [...document.links].map(each => each.protocol)")
        )
        assert set(links) == {"http:"}, path
    assert await browser.messages() == []


@pytest.mark.long  # test_pictures.py looks at each page in each run
async def test_every_page_is_accessible_and_fits_a_phone(browser, served, letters):
    await browser.log_in(served.url, secret("admin"))
    await browser.messages()
    await browser.set_size("phone")
    await browser.set_theme("dark")
    for path in ("/dead", LIST, f"{LIST}/{letters[1]}", f"{LIST}/replay?first=1"):
        await browser.open(path)
        assert await browser.violations() == [], path
        assert await browser.overflow() <= 0, path
    assert await browser.messages() == []


async def test_pages_without_dead_letters_say_what_belongs_there(served):
    await served.backend.subscribe(*ROUTE)
    for path, text in (
        ("/dead", "There are no dead letters."),
        (LIST, "This route has no dead letters."),
        (f"{LIST}/replay", "No dead letter fits the filter."),
        ("/replays", "There was no replay."),
    ):
        assert text in (await ask(served, "operator", "GET", path)).text, path
    assert (await ask(served, "reader", "GET", f"{LIST}/77")).status_code == 404
    assert (await ask(served, "reader", "GET", "/dead/unknown/route")).status_code == 404
    assert "is neither an age" in (await ask(served, "reader", "GET", f"{LIST}?since=soon")).text


async def test_pages_say_how_far_the_first_reading_is(served, letters, monkeypatch):
    monkeypatch.setattr(dead_index, "PATIENCE", 0.0)
    blocked = asyncio.Event()
    original = served.backend.dead_letters

    async def slow(*arguments: object, **options: object) -> object:
        await blocked.wait()
        return await original(*arguments, **options)

    monkeypatch.setattr(served.backend, "dead_letters", slow)
    await ask(served, "operator", "GET", "/dead")
    for path in ("/dead", LIST, f"{LIST}/replay"):
        assert "Reading the dead letters: 0 of 3" in (await ask(served, "operator", "GET", path)).text, path
    blocked.set()
    monkeypatch.setattr(dead_index, "PATIENCE", 10.0)
    assert "3 dead letters" in (await ask(served, "operator", "GET", f"{LIST}/replay")).text


async def test_pages_show_what_is_known_while_the_backend_is_away(served, letters, monkeypatch):
    monkeypatch.setattr(dead_index, "FRESH", 0.0)
    assert "KeyError in shop.billing:charge" in (await ask(served, "reader", "GET", "/dead")).text

    async def away(*_: object, **__: object) -> None:
        raise BackendUnavailable("connection refused")

    for name in ("status", "dead_letters", "entries"):
        monkeypatch.setattr(served.backend, name, away)
    for path in ("/dead", LIST):
        answer = await ask(served, "reader", "GET", path)
        assert answer.status_code == 200, path
        assert "The backend does not answer: connection refused. This page shows" in answer.text, path
        assert "KeyError in shop.billing:charge" in answer.text, path


async def test_pages_of_many_dead_letters_read_only_what_they_show(served, monkeypatch):
    await kill(served.backend, [Dying({"total": 1}), Dying({}, INVALID), Dying({})] * 300)
    ids = [each.id for each in await served.backend.dead_letters(*ROUTE, limit=1000)]
    await ask(served, "reader", "GET", "/dead")
    read = 0
    original = served.backend.dead_letters

    async def counted(*arguments: object, **options: object) -> object:
        nonlocal read
        found = await original(*arguments, **options)
        read += len(found)
        return found

    monkeypatch.setattr(served.backend, "dead_letters", counted)
    group = (await ask(served, "reader", "GET", "/v1/dead-letters/groups")).json()["groups"][1]["group"]
    for path, most in (
        ("/dead", 0),
        (f"{LIST}?group={group}&page=3", 150),
        (f"{LIST}/{ids[-1]}?group={group}", 1),
        (f"{LIST}/purge?group={group}", 0),
    ):
        read = 0
        assert (await ask(served, "admin", "GET", path)).status_code == 200
        assert read <= most, path


def test_mark_stands_at_the_value_that_fails_and_not_at_the_line_of_its_array():
    payload = {"id": "x", "items": [{"sku": "TEA", "qty": 2}, {"sku": "CUP", "qty": 0}], "empty": {}}
    lines = payload_view(payload, {"/items/1/qty": "too few", "/empty": "no members"}).lines
    shown = ["".join(text for _, text in line.parts) + (line.mark or "") for line in lines]
    assert shown == [
        *("{", '  "id": "x",', '  "items": [', '    {"sku": "TEA", "qty": 2},', "    {"),
        *('      "sku": "CUP",', '      "qty": 0too few', "    }", "  ],", '  "empty": {}no members', "}"),
    ]
