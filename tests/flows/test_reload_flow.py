"""The flow of a saved file to the running router, whichever way it was saved."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from abe_router.config.building.loader import Loader
from abe_router.edits.reload import Reloader
from abe_router.observe.events import Event, Events, Reloaded, ReloadRejected, RestartNeeded
from abe_router.runtime.reconciler import Reconciler
from tests.limits import HANG

from .conftest import Running

HANDLERS = """
async def one(payload):
    pass

async def two(payload):
    pass
"""
BILLING = "orders.created/billing"


def routes(*groups: str, concurrency: int = 10) -> str:
    consumers = "".join(
        f"      {g}: {{handler: reload_handlers:one, concurrency: {concurrency}}}\n" for g in groups
    )
    return f"backend: memory://\nroutes:\n  orders.created:\n    consumers:\n{consumers}"


WITH_SCHEMA = """\
backend: memory://
routes:
  orders.created:
    schema: order.json
    consumers: {billing: {handler: reload_handlers:one, concurrency: 1}}
"""


class Edited(Running):
    """A router that follows a file."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "routes.yaml"
        self.events = Events([((Event,), self.log)])
        self.router = Reconciler(self.backend, self.events)
        self.loader = Loader(self.path, tests="warn")
        self.reloader = Reloader(self.loader, self.router, self.events)

    async def edited(self, count: int = 1) -> Reloaded:
        """Wait for that many reloads since the start. The chaos row `reload` measures how long one takes."""
        return (await self.log.wait_for(Reloaded, count + 1))[-1]

    async def rejected(self, count: int = 1) -> str:
        events = await self.log.wait_for(ReloadRejected, count)
        return events[-1].diagnostics[0].message


@asynccontextmanager
async def following(folder: Path, text: str) -> AsyncIterator[Edited]:
    sys.modules.pop("reload_handlers", None)  # each test has its own module
    (folder / "reload_handlers.py").write_text(HANDLERS)
    run = Edited(folder)
    if not run.path.exists():
        run.path.write_text(text)
    await run.router.apply(run.loader.load())
    watching = asyncio.create_task(run.reloader.run())
    # The first sign comes after the watch has started, which sees every change from then on.
    while not run.reloader.watching:
        await asyncio.sleep(0.01)
    try:
        yield run
    finally:
        run.reloader.stop()
        await watching
        await run.router.stop(drain=0)


async def test_a_write_in_place_is_followed_and_keeps_unchanged_consumers(tmp_path):
    async with following(tmp_path, routes("billing")) as run:
        before = run.router.consumers[BILLING]
        run.path.write_text(routes("billing", "audit"))
        reloaded = await run.edited()
        assert (reloaded.added, reloaded.kept) == (("orders.created/audit",), 1)
        assert run.router.consumers[BILLING] is before


async def test_files_that_did_not_change_since_the_start_are_loaded_once(tmp_path, monkeypatch):
    loads, load = [], Loader.load
    monkeypatch.setattr(Loader, "load", lambda loader: loads.append(loader.path) or load(loader))
    async with following(tmp_path, routes("billing")) as run:
        run.path.write_text(routes("billing", "audit"))
        await run.edited()
    assert len(loads) == 2  # at the start, and for the edit


@pytest.mark.parametrize("name", ["routes.yaml", "schemas/order.json"])
async def test_an_edit_before_the_watch_begins_is_followed(tmp_path, name):
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas/order.json").write_text('{"type": "integer"}')
    (tmp_path / "reload_handlers.py").write_text(HANDLERS)
    sys.modules.pop("reload_handlers", None)
    run = Edited(tmp_path)
    run.path.write_text(WITH_SCHEMA)
    await run.router.apply(run.loader.load())
    edited = tmp_path / name
    edited.write_text(
        edited.read_text().replace("integer", "string").replace("concurrency: 1", "concurrency: 2")
    )
    watching = asyncio.create_task(run.reloader.run())
    assert (await run.edited()).changed == (BILLING,)
    run.reloader.stop()
    await watching
    await run.router.stop(drain=0)


async def test_repeated_atomic_saves_are_followed(tmp_path):
    async with following(tmp_path, routes("billing")) as run:
        for number in range(1, 4):
            fresh = tmp_path / f".routes.{number}"
            fresh.write_text(routes("billing", concurrency=number))
            fresh.replace(run.path)
            assert (await run.edited(number)).changed == (BILLING,)
            assert run.router.consumers[BILLING].route.concurrency == number


async def test_a_save_that_renames_the_old_file_is_followed(tmp_path):
    async with following(tmp_path, routes("billing")) as run:
        run.path.rename(tmp_path / "routes.yaml~")
        run.path.write_text(routes("audit"))
        reloaded = await run.edited()
        assert (reloaded.added, reloaded.removed) == (("orders.created/audit",), (BILLING,))


async def test_a_config_map_update_is_followed(tmp_path):
    for version, groups in (("v1", ["billing"]), ("v2", ["billing", "audit"])):
        (tmp_path / version).mkdir()
        (tmp_path / version / "routes.yaml").write_text(routes(*groups))
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "routes.yaml").symlink_to("..data/routes.yaml")
    async with following(tmp_path, "") as run:
        (tmp_path / "..data_tmp").symlink_to("v2")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        assert (await run.edited()).added == ("orders.created/audit",)


async def test_a_symlink_to_a_file_in_another_folder_is_followed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    here = tmp_path / "here"
    elsewhere.mkdir()
    here.mkdir()
    (elsewhere / "real.yaml").write_text(routes("billing"))
    (here / "routes.yaml").symlink_to(elsewhere / "real.yaml")
    async with following(here, "") as run:
        (elsewhere / "real.yaml").write_text(routes("billing", "audit"))
        assert (await run.edited()).added == ("orders.created/audit",)


async def test_a_deleted_file_changes_nothing_and_a_new_one_is_followed(tmp_path):
    async with following(tmp_path, routes("billing")) as run:
        before = run.router.consumers[BILLING]
        run.path.unlink()
        assert "does not exist" in await run.rejected()
        assert run.router.consumers == {BILLING: before}
        run.path.write_text(routes("billing", "audit"))
        assert (await run.edited()).added == ("orders.created/audit",)
        assert run.router.consumers[BILLING] is before


@pytest.mark.parametrize(
    "text", ["", "routes: [", "routes:\n  orders.created: {consumers: {billing: nope:x}}\n"]
)
async def test_an_edit_with_errors_changes_nothing(tmp_path, text):
    async with following(tmp_path, routes("billing")) as run:
        before = run.router.consumers[BILLING]
        run.path.write_text(text)
        await run.rejected()
        assert run.router.consumers == {BILLING: before}
        assert run.reloader.rejected

        run.path.write_text(routes("billing"))
        reloaded = await run.edited()
        assert reloaded.kept == 1
        assert not run.reloader.rejected
        assert run.router.consumers[BILLING] is before


UNFORESEEN = {
    "mute": "class Mute(Exception):\n    def __str__(self): raise ValueError\nraise Mute\n",
    "interrupt": "raise KeyboardInterrupt\n",
    "leave": "raise SystemExit\n",
    "circle": "def one(payload): ...\none.__wrapped__ = one\n",
}


@pytest.mark.parametrize("name", UNFORESEEN)
async def test_modules_that_raise_unusual_errors_change_nothing(tmp_path, name):
    (tmp_path / f"unforeseen_{name}.py").write_text(UNFORESEEN[name])
    async with following(tmp_path, routes("billing")) as run:
        before = run.router.consumers[BILLING]
        run.path.write_text(routes("billing").replace("reload_handlers", f"unforeseen_{name}"))
        await run.rejected()
        run.path.write_text(routes("billing", "audit"))
        assert (await run.edited()).added == ("orders.created/audit",)
        assert run.router.consumers[BILLING] is before


@pytest.mark.parametrize(
    "schema", [r"a\0b.json", "d" * 300 + "/x.json", "circle.json", "circle/x.json", "refers.json"]
)
async def test_an_impossible_schema_path_changes_nothing(tmp_path, schema):
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "circle.json").symlink_to("circle.json")
    (tmp_path / "schemas" / "circle").symlink_to("circle")
    (tmp_path / "schemas" / "refers.json").write_text('{"$ref": "x%00y.json"}')
    async with following(tmp_path, routes("billing")) as run:
        before = run.router.consumers[BILLING]
        run.path.write_text(routes("billing") + f'  orders.paid: {{schema: "{schema}"}}\n')
        await run.rejected()
        await asyncio.sleep(0.6)  # the next periodic check
        run.path.write_text(routes("billing", "audit"))
        assert (await run.edited()).added == ("orders.created/audit",)
        assert run.router.consumers[BILLING] is before


@pytest.mark.parametrize("place", ["loader.load", "reloader._report_code"])
async def test_edits_are_followed_after_an_unforeseen_error(tmp_path, place, monkeypatch, caplog):
    async with following(tmp_path, routes("billing")) as run:
        owner, name = place.split(".")

        def fail():
            raise LookupError("unforeseen")

        with monkeypatch.context() as patched:
            patched.setattr(getattr(run, owner), name, fail)
            run.path.write_text(routes("billing", "trail"))
            async with asyncio.timeout(HANG):
                while "unforeseen" not in caplog.text:
                    await asyncio.sleep(0.01)
        run.path.write_text(routes("billing", "audit"))
        async with asyncio.timeout(HANG):
            while "orders.created/audit" not in run.router.consumers:
                await asyncio.sleep(0.01)


WITH_CASES = """\
backend: memory://
routes:
  orders.created: {{consumers: {{{group}: {{handler: reload_handlers:one, concurrency: {concurrency}}}}}}}
  orders.paid: {{consumers: {{mail: reload_handlers:two}}}}
tests:
  it is charged: {{publish: {{key: orders.created, payload: 1}}, handled: orders.created/billing}}
  {case}
"""


async def test_tests_block_only_an_edit_of_the_routes_that_they_name(tmp_path):
    def text(case="", group="billing", concurrency=1):
        return WITH_CASES.format(case=case, group=group, concurrency=concurrency)

    stale = "the mail: {publish: {key: orders.paid, payload: 1}, handled: orders.paid/post}"
    async with following(tmp_path, text(stale)) as run:  # the start, too
        assert [*run.router.table.case_faults] == ["the mail"]
        run.path.write_text(text(stale, concurrency=2))
        assert (await run.edited()).changed == (BILLING,)
        run.path.write_text(text(stale, concurrency=2).replace("paid: {", "paid: {retain: 1h, "))
        assert await run.rejected() == "no route `orders.paid/post`"  # `the mail` publishes to this key
        run.path.write_text(text(group="charge", concurrency=2))
        assert await run.rejected(2) == "no route `orders.created/billing`"
        assert run.router.table.by_name[BILLING].concurrency == 2
        run.path.write_text(text(stale, concurrency=3))
        assert (await run.edited(2)).changed == (BILLING,)


async def test_an_edit_of_a_schema_restarts_only_the_routes_that_use_it(tmp_path):
    (tmp_path / "schemas").mkdir()
    schema = tmp_path / "schemas" / "order.json"
    schema.write_text("{}")
    text = (
        "backend: memory://\nschemas: schemas\nroutes:\n"
        "  orders.created: {schema: order.json, consumers: {billing: 'reload_handlers:one'}}\n"
        "  orders.paid: {consumers: {billing: 'reload_handlers:two'}}\n"
        "  orders.#: {consumers: {trail: 'reload_handlers:two'}}\n"
    )
    async with following(tmp_path, text) as run:
        untouched = run.router.consumers["orders.paid/billing"]
        schema.write_text(json.dumps({"type": "object"}))
        reloaded = await run.edited()
        assert reloaded.changed == (BILLING, "orders.#/trail")
        assert run.router.consumers["orders.paid/billing"] is untouched


async def test_a_schema_with_errors_is_rejected_and_its_fix_is_followed(tmp_path):
    (tmp_path / "schemas").mkdir()
    schema = tmp_path / "schemas" / "order.json"
    schema.write_text("{}")
    text = (
        "backend: memory://\nschemas: schemas\nroutes:\n"
        "  orders.created: {schema: order.json, consumers: {billing: 'reload_handlers:one'}}\n"
    )
    async with following(tmp_path, text) as run:
        schema.write_text('{"type": "objekt"}')
        await run.rejected()
        schema.write_text('{"type": "object"}')
        assert (await run.edited()).changed == (BILLING,)


async def test_a_missing_schema_is_followed_when_it_is_created(tmp_path):
    (tmp_path / "schemas").mkdir()
    async with following(tmp_path, routes("billing")) as run:
        run.path.write_text(
            "backend: memory://\nschemas: schemas\nroutes:\n"
            "  orders.created: {schema: order.json, consumers: {billing: 'reload_handlers:one'}}\n"
        )
        await run.rejected()
        (tmp_path / "schemas" / "order.json").write_text("{}")
        assert (await run.edited()).changed == (BILLING,)


async def test_a_save_that_changes_no_byte_changes_nothing(tmp_path):
    async with following(tmp_path, routes("billing")) as run:
        os.utime(run.path)
        run.path.write_text(routes("billing"))
        run.path.write_text(routes("billing", "audit"))
        await run.edited()
        assert len(run.log.of(Reloaded)) == 2


async def test_an_edit_that_is_loading_when_the_router_stops_starts_nothing(tmp_path):
    async with following(tmp_path, routes("billing")) as run:
        run.reloader.stop()
        run.path.write_text(routes("billing", "audit"))
        reading = asyncio.create_task(run.reloader.reload())
        await asyncio.sleep(0)  # a thread loads the file now
        await asyncio.gather(run.router.stop(), reading)
        assert not run.router.consumers
        assert not run.log.of(RestartNeeded)


async def test_a_table_that_is_applied_after_the_stop_starts_nothing(tmp_path):
    async with following(tmp_path, routes("billing")) as run:
        run.path.write_text(routes("billing", "audit"))
        late = run.loader.load()
        stopping = asyncio.create_task(run.router.stop())
        await asyncio.sleep(0)
        await run.router.apply(late)
        await stopping
        assert not run.router.consumers
        assert len(run.log.of(Reloaded)) == 1


async def test_a_change_of_handler_code_is_reported(tmp_path):
    async with following(tmp_path, routes("billing")) as run:
        assert run.reloader.outdated() == []
        (tmp_path / "reload_handlers.py").write_text(HANDLERS + "\nX = 1\n")
        (needed,) = await run.log.wait_for(RestartNeeded)
        assert needed.path.name == "reload_handlers.py"
        assert run.reloader.outdated() == [needed.path]
        assert len(run.log.of(Reloaded)) == 1


async def test_a_change_of_the_backend_is_reported(tmp_path):
    async with following(tmp_path, routes("billing")) as run:
        run.path.write_text(routes("billing").replace("memory://", f"sqlite:///{tmp_path}/x.db"))
        (needed,) = await run.log.wait_for(RestartNeeded)
        assert needed.what == "the backend"
