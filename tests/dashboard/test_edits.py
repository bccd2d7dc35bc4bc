"""The pages of edits, the audit and the permissions: changes, their authors, and what a token allows."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from abe_router.config.building.loader import Loader
from abe_router.diagnostic import render_all
from abe_router.errors import ConfigError
from abe_router.operations.audit import Author, record_act
from abe_router.routing.difference import OptionChange, TableChanges
from abe_router.runtime.edit_record import EDITS, EditChanges, EditOrigin, EditRecord
from abe_router.runtime.heartbeat import WORKERS, DiagnosticReport, WorkerReport
from tests.http_server.serving import secret

from .shop import shop_routes

HOSTILE = "</td><script>window.hacked=1</script>\"'><img src=x onerror=window.hacked=1>\u202etxt"
HOSTILE_OPTIONS = {HOSTILE: (OptionChange(HOSTILE, HOSTILE, HOSTILE),)}


async def test_edit_page_shows_what_check_prints_and_the_difference(browser, served):
    await browser.log_in(served.url, secret("admin"))
    await browser.open("/edits?state=rejected")
    rows = await browser.texts("tbody tr")
    assert len(rows) == 1
    assert "concurrency expects a whole number, found four" in rows[0]
    await browser.press("3", within="tbody")
    path = served.table.path
    path.write_text(shop_routes("four"))
    with pytest.raises(ConfigError) as error:
        Loader(path, import_handlers=False).load()
    assert await browser.text(".notice pre") == render_all(error.value.diagnostics).strip()
    difference = await browser.texts("pre.diff span")
    assert "-        concurrency: 4" in difference
    assert "+        concurrency: four" in difference
    await browser.fill("diff", "1")
    await browser.press("Compare")
    assert await browser.address() == "/edits/3?diff=1#diff"
    assert "-        concurrency: 2" in await browser.texts("pre.diff span")
    await browser.press("schemas/customer.json")
    assert '"x-sensitive": true' in await browser.text("#file pre")


async def test_edit_page_without_the_role_reader_shows_no_line_of_a_file(browser, served):
    await browser.log_in(served.url, secret("viewer"))
    await browser.open("/edits/3?file=routes.yaml")
    text = await browser.text()
    assert "error[R102]: `concurrency` expects a whole number, found `four`" in text
    assert "concurrency: four" not in text
    assert await browser.texts("#file") == []
    assert "The difference needs the role reader for all keys" in text


async def test_warnings_of_the_file_that_runs_are_shown(browser, served):
    warning = DiagnosticReport("routes.yaml", 4, 5, "W106", "timeout is longer than drain", "warning")
    key = {"orders.created": (OptionChange("dedupe", "1h", "2h"),)}
    edit = EditRecord(
        number=98,
        state="accepted",
        revision="f" * 64,
        path=str(served.table.path),
        host="h",
        pid=1,
        offered_at=time.time(),
        changes=EditChanges(
            (), TableChanges(keys=key, file=(OptionChange("backend", "a", "b", restart=True),))
        ),
        warnings=(warning,),
    )
    await served.backend.put(EDITS, "98", msgspec.json.encode(edit))
    report = WorkerReport("h", 1, time.time(), edit.revision, warnings=1)
    await served.backend.put(WORKERS, "w98", msgspec.json.encode(report))
    await browser.log_in(served.url, secret("admin"))
    await browser.open("/edits/98")
    assert "The file has a warning." in await browser.text(".notice")
    assert "warning[W106]: timeout is longer than drain" in await browser.text(".notice pre")
    text = await browser.text()
    assert "orders.created dedupe 1h -> 2h" in text
    assert "backend a -> b, needs a restart" in text
    await browser.open("/edits")
    assert (
        "key orders.created: dedupe 1h -> 2h; backend a -> b, needs a restart; 1 warning"
        in await browser.text()
    )
    async with asyncio.timeout(20):
        while "The routes file has a warning." not in await browser.text():
            await browser.open("/routes")


async def test_audit_filters_by_author_and_leads_to_the_route(browser, served):
    await browser.log_in(served.url, secret("operator"))
    await browser.open("/audit")
    assert len(await browser.texts("tbody tr")) == 3
    await browser.fill("author", "ada@laptop")
    await browser.fill("q", "gateway")
    await browser.press("Filter")
    (row,) = await browser.texts("tbody tr")
    assert "pause" in row
    assert "gateway down" in row
    assert "until 14:20" in row
    await browser.open("/audit?q=no-such-act")
    assert "No act fits the filter" in await browser.text()
    assert await browser.texts("a[href='/audit']") == ["Audit", "Show all 3"]


async def test_texts_of_edits_and_acts_are_shown_as_text(browser, served):
    hostile = EditRecord(
        number=99,
        state="rejected",
        revision=HOSTILE,
        path=HOSTILE,
        host=HOSTILE,
        pid=1,
        offered_at=time.time(),
        replaces=HOSTILE,
        routes=HOSTILE,
        files={HOSTILE: "0"},
        changes=EditChanges(
            (HOSTILE,),
            TableChanges((HOSTILE,), (HOSTILE,), HOSTILE_OPTIONS, (HOSTILE,), (HOSTILE,), HOSTILE_OPTIONS),
        ),
        origin=EditOrigin(HOSTILE, HOSTILE, 1e9, HOSTILE, HOSTILE, HOSTILE, True, HOSTILE),
        diagnostics=(
            DiagnosticReport(HOSTILE, 1, 1, HOSTILE, HOSTILE, label=HOSTILE, hint=HOSTILE),
            DiagnosticReport("\033[1;31m</span><img src=x onerror=window.hacked=1>", 1, 1, "R102", HOSTILE),
        ),
    )
    await served.backend.put(EDITS, "99", msgspec.json.encode(hostile))
    author = Author(HOSTILE, HOSTILE)
    await record_act(served.backend, author, HOSTILE, HOSTILE, why=HOSTILE, result=HOSTILE)
    await browser.log_in(served.url, secret("admin"))
    for path, least in (
        ("/edits?q=<script>", 1),
        ("/edits/99", 12),
        ("/edits/4?file=<script>window.hacked=1</script>&diff=99", 0),
        ("/audit", 6),
        ("/permissions?notice=<script>window.hacked=1</script>", 0),
        ("/nowhere/<script>window.hacked=1</script>", 0),
        ("/login?back=javascript:window.hacked=1", 0),
    ):
        await browser.open(path)
        assert await browser.run(lambda driver: driver.execute_script("return window.hacked")) is None
        text = await browser.text()
        assert "\u202e" not in text
        assert text.count("<script>window") >= least, path
    await browser.messages()


async def test_permissions_say_why_an_action_is_not_allowed(browser, served):
    await browser.log_in(served.url, secret("orders-operator"))
    await browser.open("/permissions")
    rows = await browser.texts("tbody tr")
    assert any("Pause" in row and row.endswith("yes\nby operator") for row in rows), rows
    assert any("audit" in row and "limited to some keys" in row for row in rows)
    assert any("Publish" in row and "does not have the role publisher" in row for row in rows)
    assert "orders.created orders.*" in await browser.text()
    await browser.open("/audit")
    assert await browser.texts("main h1") == ["The token does not allow this"]
    assert "the request needs the role operator for #" in await browser.text()
