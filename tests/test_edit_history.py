"""Edit records: each table that routers accept is recorded once, with the files that it was read from."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from abe_router.backends.memory import MemoryBackend
from abe_router.config.building.loader import Loader
from abe_router.edits import history
from abe_router.edits.history import EditRecorder
from abe_router.errors import BackendUnavailable
from abe_router.observe.events import Events
from abe_router.routing.table import RouteTable
from abe_router.runtime.edit_record import EDITS, FILES, EditFiles, edit_in_force, load_edit, read_edits
from abe_router.runtime.reconciler import Reconciler

ROUTES = """\
schemas: {schemas}
routes:
  orders.created: {{schema: order.json, consumers: {{{group}: shop:charge}}}}
"""


@pytest.fixture
async def backend():
    async with MemoryBackend() as backend:
        yield backend


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("app", "contracts"):
        (tmp_path / name).mkdir()
    (tmp_path / "contracts" / "order.json").write_text('{"$ref": "base.json"}')
    (tmp_path / "contracts" / "base.json").write_text('{"type": "object"}')
    return tmp_path


def load(folder: Path, group: str = "billing", *, schemas: str = "../contracts") -> RouteTable:
    """Write a routes file and load it."""
    path = folder / "app" / "routes.yaml"
    path.write_text(ROUTES.format(group=group, schemas=schemas))
    return Loader(path, import_handlers=False).load()


def recorder(backend: MemoryBackend, accepted: asyncio.Event | None = None) -> EditRecorder:
    reconciler = Reconciler(backend, Events([]))
    return EditRecorder(backend, reconciler, accepted=accepted or asyncio.Event())


async def test_several_workers_record_an_edit_once(backend, folder):
    tables = [load(folder) for _ in range(4)]
    await asyncio.gather(*(recorder(backend).record(table) for table in tables))
    (edit,) = await read_edits(backend)
    assert (edit.number, edit.revision, edit.replaces) == (1, tables[0].revision, "")
    assert edit.path == str(folder / "app" / "routes.yaml")


async def test_an_edit_and_its_return_are_three_records_of_two_revisions(backend, folder):
    for group in ("billing", "invoices", "billing"):
        await recorder(backend).record(load(folder, group))
    one, two, three = await read_edits(backend)
    assert [edit.number for edit in (one, two, three)] == [1, 2, 3]
    assert one.revision == three.revision != two.revision
    assert (two.replaces, three.replaces) == (one.revision, two.revision)
    assert len(await backend.entries(FILES)) == 2


async def test_a_record_has_the_files_of_its_table_and_loads_as_it(backend, folder):
    table = load(folder)
    await recorder(backend).record(table)
    (edit,) = await read_edits(backend)
    for name in ("app/routes.yaml", "contracts/order.json", "contracts/base.json"):
        (folder / name).unlink()
    found = await load_edit(backend, edit, "memory://", table.path)
    assert found is not None
    assert (found.revision, found.path, list(found.by_name)) == (table.revision, table.path, [*table.by_name])
    assert [schema.document for schema in found.contract("orders.created").schemas] == [{"$ref": "base.json"}]


async def test_files_that_make_another_table_are_not_taken_for_the_edit(backend, folder):
    table = load(folder, schemas=str(folder / "contracts"))  # not relative, so it is read where it is
    await recorder(backend).record(table)
    (edit,) = await read_edits(backend)
    assert await load_edit(backend, edit, "memory://", table.path) is not None
    (folder / "contracts" / "base.json").write_text("{}")
    assert await load_edit(backend, edit, "memory://", table.path) is None


async def test_files_that_were_saved_meanwhile_are_not_recorded(backend, folder):
    table = load(folder)
    load(folder, "invoices")
    await recorder(backend).record(table)
    assert await read_edits(backend) == []
    assert not await backend.entries(FILES)


async def test_files_are_recorded_without_a_folder_for_temporary_files(backend, folder, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(folder / "none"))
    table = load(folder)
    await recorder(backend).record(table)
    (edit,) = await read_edits(backend)
    assert await load_edit(backend, edit, "memory://", table.path) is None
    monkeypatch.setattr("tempfile.tempdir", None)
    assert await load_edit(backend, edit, "memory://", table.path) is not None


async def test_only_the_last_edits_are_kept_with_their_files(backend, folder, monkeypatch):
    monkeypatch.setattr(history, "KEPT", 2)
    for group in ("a", "b", "c", "d"):
        await recorder(backend).record(load(folder, group))
    assert [edit.number for edit in await read_edits(backend)] == [3, 4]
    assert set(await backend.entries(FILES)) == {edit.revision for edit in await read_edits(backend)}


async def test_edit_is_recorded_when_the_backend_is_back(backend, folder, monkeypatch):
    monkeypatch.setattr(history, "EVERY", 0.01)
    put, refused, stored = backend.put, asyncio.Event(), asyncio.Event()

    async def unavailable(*_args, **_options):
        refused.set()
        raise BackendUnavailable("away")

    async def storing(bucket, *args, **options):
        if bucket == EDITS:
            stored.set()
        return await put(bucket, *args, **options)

    monkeypatch.setattr(backend, "put", unavailable)
    accepted = asyncio.Event()
    reconciler = Reconciler(backend, Events([]))
    await reconciler.apply(load(folder))
    running = asyncio.create_task(EditRecorder(backend, reconciler, accepted=accepted).run())
    async with asyncio.timeout(10):
        await refused.wait()
        monkeypatch.setattr(backend, "put", storing)
        await stored.wait()
        while not await read_edits(backend):
            await asyncio.sleep(0)
    running.cancel()
    await reconciler.stop()


@pytest.mark.parametrize(
    "value", [b"of another version", b'{"x":' * 3000 + b"1" + b"}" * 3000], ids=["no JSON", "deep"]
)
async def test_record_of_another_version_is_left_out(backend, folder, value):
    await backend.put(EDITS, "1", value)
    await recorder(backend).record(load(folder))
    async with asyncio.timeout(5):
        assert [edit.number for edit in await read_edits(backend)] == [2]


async def test_edit_that_workers_run_counts_before_the_last_one(backend, folder):
    for group in ("a", "b"):
        await recorder(backend).record(load(folder, group))
    one, two = await read_edits(backend)
    path = folder / "app" / "routes.yaml"
    assert edit_in_force([one, two], path, set()) == two
    assert edit_in_force([one, two], path, {one.revision}) == one
    assert edit_in_force([one, two], Path("/elsewhere/routes.yaml"), set()) == two
    assert edit_in_force([], path, set()) is None


def test_name_that_leads_out_of_the_folder_is_refused(tmp_path):
    files = EditFiles("routes.yaml", {"routes.yaml": b"routes: {a: {}}", "../../out": b"x"})
    with pytest.raises(ValueError, match="leads out"):
        files.load("memory://", tmp_path / "routes.yaml")
