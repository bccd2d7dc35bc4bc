"""Edit records: each table that routers are offered is recorded once, with the files it was read from."""

from __future__ import annotations

import asyncio
import os
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from abe_router.application import Application
from abe_router.backends import make_backend
from abe_router.backends.memory import MemoryBackend
from abe_router.config.building.loader import Loader
from abe_router.edits import history
from abe_router.edits.history import EditRecorder
from abe_router.edits.origin import CHANGE, origin_of
from abe_router.errors import BackendUnavailable, ConfigError
from abe_router.routing.table import RouteTable
from abe_router.runtime.edit_files import WITHHELD, EditFiles
from abe_router.runtime.edit_record import (
    EDITS,
    FILES,
    EditChanges,
    EditOrigin,
    edit_in_force,
    load_edit,
    read_edits,
    read_files,
)
from abe_router.runtime.heartbeat import WORKERS, WorkerReport

from .flows.conftest import within

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


def write(folder: Path, text: str) -> Path:
    path = folder / "app" / "routes.yaml"
    path.write_text(text)
    return path


def faults_of(path: Path):
    """Return the diagnostics of a faulty file."""
    with pytest.raises(ConfigError) as error:
        Loader(path, import_handlers=False).load()
    return error.value.diagnostics


def quick_evidence(offer, before):
    """Return the files of an offer without a comparison, which takes most of the time of a record."""
    revision = offer.table.revision if offer.table else ""
    return history._Evidence(EditFiles.read(offer.path, offer.sources), revision, EditChanges(), EditOrigin())


async def record(backend, *tables: RouteTable, recorder: EditRecorder | None = None) -> None:
    """Record tables as one worker does."""
    recorder = recorder or EditRecorder(backend)
    for table in tables:
        recorder.accept(table)
    await recorder.record()


async def test_several_workers_record_an_edit_once(backend, folder):
    tables = [load(folder) for _ in range(4)]
    await asyncio.gather(*(record(backend, table) for table in tables))
    (edit,) = await read_edits(backend)
    assert (edit.number, edit.state, edit.revision, edit.replaces) == (1, "accepted", tables[0].revision, "")
    assert edit.path == str(folder / "app" / "routes.yaml")


async def test_an_edit_and_its_return_are_three_records_of_two_revisions(backend, folder):
    recorder = EditRecorder(backend)
    for group in ("billing", "invoices", "billing"):
        await record(backend, load(folder, group), recorder=recorder)
    one, two, three = await read_edits(backend)
    assert [edit.number for edit in (one, two, three)] == [1, 2, 3]
    assert one.revision == three.revision != two.revision
    assert (two.replaces, three.replaces) == (one.revision, two.revision)
    assert len(await backend.entries(FILES)) == 2 + 2  # two routes files, two schemas


async def test_slow_workers_find_the_edits_that_others_have_recorded(backend, folder, monkeypatch):
    monkeypatch.setattr(history, "_evidence", quick_evidence)
    tables = [load(folder, group) for group in ("a", "b", "a", "c", "a")]
    faults = faults_of(write(folder, "routes: ["))
    workers = [EditRecorder(backend) for _ in range(4)]
    for worker in workers[:3]:
        for number, table in enumerate(tables):
            load(folder, "abaca"[number])
            worker.accept(table)
            if worker is workers[0]:
                await worker.record()
        write(folder, "routes: [")
        worker.reject(tables[0].path, tables[0].sources, faults)
        worker.accept(replace(tables[-1]))
    await asyncio.gather(*(worker.record() for worker in workers[:2]))
    await workers[2].record()
    await record(backend, tables[-1], recorder=workers[3])  # it was started after all edits
    edits = await read_edits(backend)
    assert [edit.revision for edit in edits] == [
        *(table.revision for table in tables),
        "",
        tables[-1].revision,
    ]


async def test_four_applications_record_each_edit_once(folder, tmp_path):
    url = f"sqlite:///{tmp_path}/queue.db"
    path = write(folder, f"backend: {url}\nroutes: {{a: {{consumers: {{g: os.path:basename}}}}}}\n")
    loaders = [Loader(path) for _ in range(4)]
    applications = [
        Application(loader.load(), make_backend(url), loader=loader, number=number)
        for number, loader in enumerate(loaders, 1)
    ]
    for application in applications:
        await application.start()
    text = path.read_text()
    try:
        async with within(), make_backend(url) as backend:
            for number, edited in enumerate(
                (text, text.replace("{g:", "{h:"), text + "nonsense: 1\n", text), start=1
            ):
                path.write_text(edited)
                while len(await read_edits(backend)) < number:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(history.LATER + 0.5)
            edits = await read_edits(backend)
    finally:
        for application in applications:
            await application.stop(0.0)
    assert [edit.state for edit in edits] == ["accepted", "accepted", "rejected", "accepted"]
    assert edits[0].revision == edits[3].revision
    assert edits[1].changes.table.added == ("a/h",)
    assert "nonsense" in edits[2].diagnostics[0].message


async def test_a_record_has_the_files_of_its_table_and_loads_as_it(backend, folder):
    table = load(folder)
    await record(backend, table)
    (edit,) = await read_edits(backend)
    for name in ("app/routes.yaml", "contracts/order.json", "contracts/base.json"):
        (folder / name).unlink()
    found = await load_edit(backend, edit, "memory://", table.path)
    assert found is not None
    assert (found.revision, found.path, list(found.by_name)) == (table.revision, table.path, [*table.by_name])
    assert [schema.document for schema in found.contract("orders.created").schemas] == [{"$ref": "base.json"}]


async def test_a_record_says_what_changed(backend, folder):
    recorder = EditRecorder(backend)
    await record(backend, load(folder), recorder=recorder)
    (folder / "contracts" / "base.json").write_text('{"type": "object", "minProperties": 1}')
    path = write(folder, ROUTES.format(schemas="../contracts", group="billing").replace("}}", ", new: a:b}}"))
    await record(backend, Loader(path, import_handlers=False).load(), recorder=recorder)
    one, two = await read_edits(backend)
    assert one.changes.files == ("app/routes.yaml", "contracts/base.json", "contracts/order.json")
    assert one.changes.table is None
    assert two.changes.files == ("app/routes.yaml", "contracts/base.json")
    assert (two.changes.table.added, two.changes.table.removed) == (("orders.created/new",), ())
    assert [*two.changes.table.lines()] == [
        "added orders.created/new",
        "changed orders.created/billing (schema edited)",
        "key orders.created: schema edited",
    ]


async def test_a_record_says_what_changed_in_a_key_and_in_the_backend(backend, folder):
    recorder = EditRecorder(backend)
    for text in (
        "routes: {a: {dedupe: 1h}}\n",
        "backend: sqlite:///other.db\nroutes: {a: {dedupe: 2h}, b: {}}\n",
    ):
        table = Loader(write(folder, text), import_handlers=False, env={}).load()
        await record(backend, table, recorder=recorder)
    first, second = await read_edits(backend)
    assert first.changes.table is None
    added, key, file = second.changes.table.lines()
    assert (added, key) == ("added key b", "key a: dedupe 1h -> 2h")
    assert file.startswith("backend sqlite:///")
    assert file.endswith(f"{folder}/app/other.db, needs a restart")


async def test_a_rejected_edit_is_recorded_with_its_faults_and_files(backend, folder):
    table = load(folder)
    recorder = EditRecorder(backend)
    await record(backend, table, recorder=recorder)
    path = write(folder, "routes: {a: {consumers: {g: nothing}}}\n")
    for worker in (recorder, EditRecorder(backend)):
        worker.reject(path, table.sources, faults_of(path))
        await worker.record()
    edit = (await read_edits(backend))[-1]
    assert (edit.number, edit.state, edit.revision, edit.replaces) == (2, "rejected", "", table.revision)
    assert (edit.diagnostics[0].line, edit.diagnostics[0].severity) == (1, "error")
    assert (await read_files(backend, edit)).contents["app/routes.yaml"] == path.read_bytes()
    assert edit_in_force(await read_edits(backend), path, set()).number == 1


async def test_files_that_make_another_table_are_not_taken_for_the_edit(backend, folder):
    table = load(folder, schemas=str(folder / "contracts"))  # not relative, so it is read where it is
    await record(backend, table)
    (edit,) = await read_edits(backend)
    assert await load_edit(backend, edit, "memory://", table.path) is not None
    (folder / "contracts" / "base.json").write_text("{}")
    assert await load_edit(backend, edit, "memory://", table.path) is None


async def test_files_that_were_saved_meanwhile_are_left_out_of_the_record(backend, folder):
    table = load(folder)
    load(folder, "invoices")
    await record(backend, table)
    (edit,) = await read_edits(backend)
    assert (edit.revision, edit.files) == (table.revision, {})
    assert not await backend.entries(FILES)
    with pytest.raises(ValueError, match="changed before"):
        await read_files(backend, edit)


async def test_files_are_recorded_without_a_folder_for_temporary_files(backend, folder, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(folder / "none"))
    table = load(folder)
    await record(backend, table)
    (edit,) = await read_edits(backend)
    assert await load_edit(backend, edit, "memory://", table.path) is None
    monkeypatch.setattr("tempfile.tempdir", None)
    assert await load_edit(backend, edit, "memory://", table.path) is not None


async def test_the_last_edits_and_those_in_force_are_kept_with_their_files(folder, monkeypatch):
    monkeypatch.setattr(history, "KEPT", 2)
    now = 0.0
    backend = MemoryBackend(clock=lambda: now)
    recorder = EditRecorder(backend)
    tables = []
    for group in ("a", "b", "c", "d"):
        tables.append(load(folder, group))
        await record(backend, tables[-1], recorder=recorder)
        if group == "a":
            report = WorkerReport("elsewhere", 1, 0.0, tables[0].revision)
            await backend.put(WORKERS, "w", msgspec.json.encode(report))
    edits = await read_edits(backend)
    assert [edit.number for edit in edits] == [1, 3, 4]
    now = history.UNNAMED + 1
    assert set(await backend.entries(FILES)) == {d for edit in edits for d in edit.files.values()}
    for edit in edits:
        assert await load_edit(backend, edit, "memory://", tables[0].path) is not None


async def test_the_accepted_edit_outlives_a_storm_of_rejected_ones(backend, folder, monkeypatch):
    monkeypatch.setattr(history, "KEPT", 2)
    recorder = EditRecorder(backend)
    await record(backend, load(folder), recorder=recorder)
    for number in range(4):
        path = write(folder, f"nonsense{number}: 1\n")
        recorder.reject(path, (), faults_of(path))
    await recorder.record()
    assert [(e.number, e.state) for e in await read_edits(backend)] == [
        (1, "accepted"),
        (4, "rejected"),
        (5, "rejected"),
    ]


class Crashing(MemoryBackend):
    """A memory backend whose writes of the key-value store fail from a number on, before or after."""

    left, after = 10**9, False

    async def _call(self, call, *args, **options):
        self.left -= 1
        if self.left < 0 and not self.after:
            raise BackendUnavailable("away")
        result = await call(*args, **options)
        if self.left < 0:
            raise BackendUnavailable("away")
        return result

    async def put(self, *args, **options):
        return await self._call(super().put, *args, **options)

    async def delete(self, *args, **options):
        return await self._call(super().delete, *args, **options)


@pytest.mark.parametrize("after", [False, True])
async def test_history_is_whole_after_a_crash_at_each_step(folder, monkeypatch, after):
    monkeypatch.setattr(history, "KEPT", 2)
    monkeypatch.setattr(history, "UNNAMED", 0.0)
    monkeypatch.setattr(history, "_evidence", quick_evidence)
    text = "routes: {{a: {{consumers: {{{}: a:b}}}}}}"

    def load(group: str) -> RouteTable:
        return Loader(write(folder, text.format(group)), import_handlers=False).load()

    tables = [load(group) for group in "abc"]
    steps = 0
    while True:
        backend = Crashing()
        for group, table in zip("ab", tables, strict=False):
            load(group)
            await record(backend, table)
        load("c")
        backend.left, backend.after = steps, after
        finished = True
        try:
            await record(backend, tables[2])
        except BackendUnavailable:
            finished = False
        backend.left = 10**9
        await record(backend, tables[2])  # by the worker that is started next
        edits = await read_edits(backend)
        assert [edit.revision for edit in edits][-2:] == [tables[1].revision, tables[2].revision]
        for edit in edits[-2:]:
            assert await load_edit(backend, edit, "memory://", tables[0].path) is not None
        if finished:
            break
        steps += 1
    assert steps >= 5


class Via:
    """A backend that calls `before` with the bucket and the options of each put."""

    def __init__(self, backend, before):
        self._backend, self._before = backend, before

    def __getattr__(self, name):
        return getattr(self._backend, name)

    async def put(self, bucket, *args, **options):
        await self._before(bucket, options)
        return await self._backend.put(bucket, *args, **options)


async def test_files_that_a_pruning_worker_found_unnamed_are_kept_once_a_record_names_them(
    folder, monkeypatch
):
    monkeypatch.setattr(history, "KEPT", 2)
    now = 0.0
    backend = MemoryBackend(clock=lambda: now)
    for group in ("a", "b"):
        await record(backend, load(folder, group))
    monkeypatch.setattr(history, "SIMULTANEOUS", -60.0)  # the edits above were before those below
    recorded, ready, pruning, done = (asyncio.Event() for _ in range(4))
    buckets: list[str] = []

    async def before_pruner(bucket, options):
        if "ttl" in options:  # it has looked for records that name the files
            pruning.set()
            await done.wait()
        elif buckets[-1:] == [EDITS]:
            recorded.set()
            await ready.wait()
        buckets.append(bucket)

    async def before_returner(bucket, options):
        if bucket == EDITS:  # it has stored the files
            ready.set()
            await pruning.wait()

    async with within():
        pruner = asyncio.create_task(record(Via(backend, before_pruner), load(folder, "c")))
        await recorded.wait()
        table = load(folder, "a")
        await record(Via(backend, before_returner), table)
        done.set()
        await pruner
    now = history.UNNAMED + 1
    edit = (await read_edits(backend))[-1]
    assert (edit.number, edit.revision) == (4, table.revision)
    assert await load_edit(backend, edit, "memory://", table.path) is not None


async def test_edits_are_recorded_when_the_backend_is_back(folder, monkeypatch):
    monkeypatch.setattr(history, "EVERY", 0.01)
    backend = Crashing()
    backend.left = 0
    recorder = EditRecorder(backend)
    running = asyncio.create_task(recorder.run())
    async with within():
        for group in ("a", "b"):
            recorder.accept(load(folder, group))
            await asyncio.sleep(0.1)
        backend.left = 10**9
        while len(await read_edits(backend)) < 2:
            await asyncio.sleep(0.01)
    running.cancel()
    assert [bool(edit.files) for edit in await read_edits(backend)] == [False, True]


@pytest.mark.parametrize(
    "value", [b"of another version", b'{"x":' * 3000 + b"1" + b"}" * 3000], ids=["no JSON", "deep"]
)
async def test_record_of_another_version_is_left_out(backend, folder, value):
    await backend.put(EDITS, "1", value)
    await record(backend, load(folder))
    async with within():
        assert [edit.number for edit in await read_edits(backend)] == [2]


async def test_edit_that_workers_run_counts_before_the_last_one(backend, folder):
    for group in ("a", "b"):
        await record(backend, load(folder, group))
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


#: Backends with a password or a token `hunter2`, as a routes file may write them.
WITH_CREDENTIALS = [
    "redis://u:hunter2@host/0",
    "redis://:hunter2@host/0",
    "redis://u:hun%40ter2hunter2@host/0",
    "redis://host/0?password=hunter2",
    "'redis://u:hunter2''s@host/0'",
    '"redis://u:\\x68unter2@host/0"',
    '"redis://u:hunter2\\\n    @host/0"',
    "${NOT_SET:-redis://u:hunter2@host/0}",
    "redis://u:${NOT_SET:-hunter2}@host/0",
    "redis://u:a@hunter2@host/0",
    "redis://host/0  # was redis://u:hunter2@host/0",
]


@pytest.mark.parametrize("url", WITH_CREDENTIALS)
async def test_no_credentials_of_the_file_are_stored(backend, folder, url):
    path = write(folder, f"backend: {url}\nroutes: {{a: {{consumers: {{g: a:b}}}}}}\n")
    table = Loader(path, import_handlers=False).load()
    await record(backend, table)
    path.write_text(path.read_text() + "nonsense: 1\n")
    recorder = EditRecorder(backend)
    recorder.reject(path, (), faults_of(path))
    await recorder.record()
    stored = [entry.value for bucket in (EDITS, FILES) for entry in (await backend.entries(bucket)).values()]
    stored += [zlib.decompress(entry.value) for entry in (await backend.entries(FILES)).values()]
    assert len(stored) in (4, 6)  # two edits, and the contents of their files
    for value in stored:
        assert not any(secret in value for secret in (b"hunter2", b"x68unter2", b"hun%40"))
    edit = (await read_edits(backend))[0]
    loaded = await load_edit(backend, edit, table.backend, path)
    if loaded is not None:
        assert (loaded.revision, [*loaded.by_name]) == (table.revision, ["a/g"])
    assert (loaded is None) == (WITHHELD in stored)
    assert (WITHHELD in stored) == ("''" in url or "\n" in url)


async def test_no_credentials_are_stored_without_a_folder_for_temporary_files(backend, folder, monkeypatch):
    path = write(folder, 'backend: "redis://u:hunter2\\\n    @host/0"\nroutes: {a: {consumers: {g: a:b}}}\n')
    table = Loader(path, import_handlers=False).load()
    monkeypatch.setattr("tempfile.tempdir", str(folder / "none"))
    await record(backend, table)
    stored = [zlib.decompress(entry.value) for entry in (await backend.entries(FILES)).values()]
    assert stored == [WITHHELD]


@pytest.mark.parametrize(
    "url",
    [
        "redis://host/0",
        "${ABE_ROUTER_BACKEND:-memory://}",
        "redis://u:${PASSWORD}@host/0",
        "redis://${USERNAME}:${PASSWORD}@host/0?token=${TOKEN}",
        "redis://u@host/0",
    ],
)
def test_variables_and_names_of_users_are_kept(tmp_path, monkeypatch, url):
    for name in ("PASSWORD", "USERNAME", "TOKEN"):
        monkeypatch.setenv(name, "hunter2")
    path = tmp_path / "routes.yaml"
    path.write_text(f"backend: {url}\nroutes: {{a: {{consumers: {{g: a:b}}}}}}\n")
    files = EditFiles.read(path, ())
    assert files.without_credentials() == files


def git(folder: Path, *args: str) -> None:
    identity = ("-c", "user.name=Ada Lovelace", "-c", "user.email=ada@example.com")
    subprocess.run(["git", *identity, "-C", str(folder), *args], check=True, capture_output=True)


def test_origin_is_the_commit_and_the_owner_of_the_file_that_changed_last(folder):
    write(folder, "routes: {}")
    paths = [folder / "app" / "routes.yaml", folder / "contracts" / "order.json"]
    os.utime(paths[0], (1_000.0, 1_000.0))
    os.utime(paths[1], (2_000.0, 2_000.0))
    origin = origin_of(paths)
    assert (origin.file, origin.modified_at, origin.author) == (str(paths[1]), 2_000.0, "")
    assert origin.by == origin.owner != ""
    git(folder, "init", "-q")
    git(folder, "add", ".")
    assert origin_of(paths).author == ""
    git(folder, "commit", "-q", "-m", "Raise the limit")
    origin = origin_of(paths)
    assert (origin.by, origin.why, origin.uncommitted) == ("Ada Lovelace", "Raise the limit", False)
    write(folder, "routes: {a: {}}")
    origin = origin_of(paths)
    assert (origin.by, origin.why) == (origin.owner, f"uncommitted, after {origin.commit}")


async def test_change_of_the_deployer_belongs_to_the_table_that_the_process_starts_with(
    backend, folder, monkeypatch
):
    monkeypatch.setenv(CHANGE, "release 7 of redis://me:hunter2@host")
    recorder = EditRecorder(backend)
    for group in ("a", "b"):
        await record(backend, load(folder, group), recorder=recorder)
    one, two = await read_edits(backend)
    assert (one.origin.change, two.origin.change) == ("release 7 of redis://***@host", "")
    assert one.origin.why == one.origin.change
