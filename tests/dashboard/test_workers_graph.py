"""The pages of the workers and of the graph; what no page believes; and how long many routes take."""

from __future__ import annotations

import json
import time

import httpx
import msgspec
import pytest

from abe_router.observe.tally import ProcessCounts
from abe_router.runtime.heartbeat import WORKERS, DiagnosticReport, RouteState, WorkerReport
from abe_router.runtime.override import OVERRIDES, Override
from tests.dashboard import busy
from tests.http_server.serving import add_dead_letter, all_tokens, secret, serving
from tests.limits import HANG

HOSTILE = "</td><script>window.hacked=1</script>\"'><img src=x onerror=window.hacked=1>"


async def test_workers_show_what_they_do_and_what_is_wrong(browser, shop):
    watch = shop.server._site.sampler.watch
    watch._known["worker-2"].seen_at -= 12
    known = watch._known["worker-3"]
    fault = DiagnosticReport("routes.yaml", 41, 13, "E203", "there is no schema `order.jsn`")
    known.report = msgspec.structs.replace(known.report, rejected=(fault,), outdated=("/app/shop.py",))
    await browser.log_in(shop.url, secret("viewer"))
    await browser.open("/workers")
    rows = await browser.texts("#workers tbody tr")
    assert "worker 1\nhost-a, pid 4001\nrunning" in rows[0]
    assert "silent\nno word for 1" in rows[1]
    assert "rejected routes.yaml:41: there is no schema" in rows[2]
    assert "runs old code: /app/shop.py" in rows[2]
    summary = await browser.text("#summary")
    assert "3 of 4" in summary
    assert "no word from worker 2 for 1" in summary
    await browser.open("/routes")
    notice = await browser.text("#notices")
    assert "The file on disk was rejected." in notice
    assert "Edits\n1" in await browser.texts("nav a")
    assert "error[E203]: there is no schema `order.jsn`\n  --> routes.yaml:41:13" in notice


async def test_workers_are_not_shown_to_a_token_of_some_keys(browser, shop):
    await browser.log_in(shop.url, secret("orders-viewer"))
    await browser.open("/workers")
    assert "needs the role viewer for #" in await browser.text()


async def test_graph_links_the_routes_with_live_numbers(browser, shop):
    await browser.log_in(shop.url, secret("viewer"))
    await browser.open("/graph?q=refunds")
    labels = await browser.texts("#graph text")
    assert labels[:3] == ["Keys", "Groups", "orders.cancelled"]
    assert labels[3] == "refunds"
    assert labels[4].startswith("failing, ")
    assert labels[4].endswith("/s, 3 dead")
    await browser.press_first("#graph a .box")
    await browser.until("h1", lambda text: text == "orders.cancelled / refunds")
    await browser.open("/graph?q=nothing")
    assert "No route matches the filter." in await browser.text("#graph")


async def test_graph_of_a_token_of_some_keys_has_these_alone(browser, shop):
    await browser.log_in(shop.url, secret("orders-viewer"))
    await browser.open("/graph")
    labels = await browser.texts("#graph .key text")
    assert set(labels) == {"orders.cancelled", "orders.paid", "orders.created"}


@pytest.mark.long  # test_pictures.py looks at each page in each run
async def test_both_fit_a_phone_and_have_no_violations(browser, shop):
    await browser.set_size("phone")
    await browser.log_in(shop.url, secret("admin"))
    for theme in ("light", "dark"):
        await browser.set_theme(theme)
        for path in ("/workers", "/graph"):
            await browser.open(path)
            assert await browser.violations() == []
            assert await browser.overflow() == 0


def hostile_file() -> str:
    """Return a routes file whose metadata are hostile."""
    tokens = {name: options for name, options in all_tokens().items() if name == "admin"}
    text, lines = json.dumps(HOSTILE), "".join(f"    {name}: {each}\n" for name, each in tokens.items())
    return (
        f"backend: memory://\nhttp:\n  listen: 127.0.0.1:0\n  tokens:\n{lines}"
        f"routes:\n  orders.created:\n    description: {text}\n    owner: {text}\n    tags: [{text}]\n"
        f"    schema: order.json\n    consumers: {{billing: 'os:getcwd'}}\n"
    )


async def test_no_text_of_a_worker_a_message_or_a_file_becomes_markup(browser, tmp_path):
    async with serving(tmp_path, hostile_file()) as served:
        route = "orders.created/billing"
        await add_dead_letter(served, {"total": 1, "text": HOSTILE})
        override = Override("limit", route, time.time(), 900, HOSTILE, HOSTILE, 5.0)
        await served.backend.put(OVERRIDES, override.name, msgspec.json.encode(override), ttl=900)
        fault = DiagnosticReport(HOSTILE, 1, 1, HOSTILE, HOSTILE)
        report = WorkerReport(
            HOSTILE,
            7,
            time.time(),
            HOSTILE,
            path=HOSTILE,
            routes={route: RouteState()},
            rejected=(fault,),
            outdated=(HOSTILE,),
        )
        await served.backend.put(WORKERS, HOSTILE, msgspec.json.encode(report), ttl=60)
        sampler = served.server._site.sampler
        await sampler.sample()
        await browser.log_in(served.url, secret("admin"))
        paths = {
            "/routes": 4,
            "/routes?q=<script>window.hacked=1</script>&sort=<img/onerror=1>": 1,
            f"/routes/{route}": 6,
            f"/routes/{route}?notice={HOSTILE}": 6,
            "/workers": 3,
            "/graph": 0,
            "/graph?q=<script>window.hacked=1</script>": 0,
        }
        for path, least in paths.items():
            await browser.open(path)
            await browser.until("#connection", lambda text: text == "")
            text = await browser.text()
            assert text.count("<script>window.hacked=1</script>") >= least, path
            assert await browser.run(hacked) == [None, 0], path
        await browser.open("/routes")
        for known in sampler.watch._known.values():  # the event stream says which worker is silent
            known.seen_at -= 12
        await browser.until("#summary", lambda text: "no word from </td><script>" in text)
        await browser.until(
            '[data-condition="stale"]', lambda text: "no heartbeat from </td><script>" in text
        )
        assert await browser.run(hacked) == [None, 0]


def hacked(driver):
    """Return what the hostile text would have left."""
    found = "return [window.hacked, document.querySelectorAll('main script, main img').length]"
    return driver.execute_script(found)


@pytest.mark.alone
async def test_a_thousand_routes_are_rendered_in_a_fifth_of_a_second(tmp_path, monkeypatch):
    many = {f"orders.k{number}/billing": (9.0, 3, 0.5 * (number < 9), "team") for number in range(1_000)}
    async with serving(tmp_path, busy.shop_file(many)) as served:
        monkeypatch.setattr(busy, "SHOP", many)
        served.server._site.sampler.history = busy.filled_history(many, 12)
        await busy.put_workers(served, 1)
        calls = []
        read = served.backend.status

        async def counted():
            calls.append(1)
            return await read()

        monkeypatch.setattr(served.backend, "status", counted)
        headers = {"Authorization": f"Bearer {secret('viewer')}"}
        async with httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=HANG) as client:
            for path in ("/routes", "/graph", "/routes/orders.k1/billing"):
                taken = []
                for _ in range(2):
                    began = time.process_time()
                    answer = await client.get(path, headers=headers)
                    taken.append(time.process_time() - began)
                    assert answer.status_code == 200
                assert min(taken) < 0.2, path
                assert path != "/routes" or answer.text.count("<tr id=") == 1_000
        assert len(calls) < 12  # a page costs the backend nothing while an answer is fresh


async def test_counts_of_processes_are_those_of_the_supervisor(browser, shop, monkeypatch):
    class Counters:
        def counts(self):
            return {}

        def process_counts(self):
            return ProcessCounts(stalls=3, outages=2, outage_seconds=61.0, accepted=5, rejected=1)

    monkeypatch.setattr(shop.server._source, "_counters", Counters)
    await browser.log_in(shop.url, secret("viewer"))
    await browser.open("/workers")
    summary = await browser.text("#summary")
    for shown in ("Blocked loops\n3", "Outages of the backend\n2\n1 min in all", "5 accepted\n1 rejected"):
        assert shown in summary
