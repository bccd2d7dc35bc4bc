"""`abe-router history`: the edits, the files of one, the difference of two, without any secret."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from abe_router.backend import Features
from abe_router.backends.memory import MemoryBackend
from abe_router.config.building.loader import Loader
from abe_router.edits.history import EditRecorder
from abe_router.errors import ConfigError
from abe_router.operations.errors import OperationRefused
from abe_router.operations.history import read_history
from abe_router.runtime.heartbeat import WORKERS, WorkerReport

from .conftest import ROUTES, Run, on_backend


def save(path: Path, text: str) -> None:
    path.write_text(text)


def offer(*texts: str, path: Path = Path("routes.yaml"), url: str = "sqlite:///shop.db") -> None:
    """Record edits as one running worker does."""

    async def act(backend) -> None:
        recorder = EditRecorder(backend)
        for text in texts:
            save(path, text)
            loader = Loader(path, import_handlers=False)
            try:
                recorder.accept(loader.load())
            except ConfigError as error:
                recorder.reject(path, loader.files, error.diagnostics)
            await recorder.record()

    on_backend(act, url)


EDITED = ROUTES.replace("concurrency: 2", "concurrency: 3").replace("  payments.settled: {}\n", "")
FAULTY = ROUTES.replace("concurrency", "concurency")


def test_history_shows_the_newest_edit_first_with_what_changed(run: Run, shop: Path) -> None:
    assert run("history").err.endswith("no edit is recorded: running workers record each edit of the file\n")
    offer(ROUTES, EDITED, FAULTY, ROUTES)
    found = run("history", "--json").json
    assert [(edit["record"]["number"], edit["record"]["state"]) for edit in found] == [
        (4, "accepted"),
        (3, "rejected"),
        (2, "accepted"),
        (1, "accepted"),
    ]
    assert found[0]["record"]["revision"] == found[3]["record"]["revision"]
    lines = run("history").out.splitlines()
    assert "changed orders.created/audit (concurrency 2 -> 3)" in lines[3]
    assert re.search(r"rejected .*line 10: unknown option `concurency`", lines[2])
    assert found[0]["by"] in lines[1]


def test_files_of_an_edit_can_be_put_back(run: Run, shop: Path) -> None:
    offer(ROUTES, EDITED)
    done = run("history", "1")
    assert (done.code, done.out) == (0, ROUTES)
    assert "other files, for --file: schemas/order.json" in done.err
    schema = (shop / "schemas" / "order.json").read_text()
    assert run("history", "1", "--file", "schemas/order.json").out == schema + "\n"
    assert run("history", "1", "--json").json["files"]["routes.yaml"] == ROUTES


def test_difference_of_two_edits_is_a_patch(run: Run, shop: Path) -> None:
    offer(ROUTES, EDITED, ROUTES)
    (shop / "before").mkdir()
    (shop / "before" / "routes.yaml").write_text(ROUTES)
    patch = run("history", "2", "--diff", "1").out
    assert patch.startswith("--- edit 1/routes.yaml\n+++ edit 2/routes.yaml\n")
    subprocess.run(["patch", "-s", "-p0", "before/routes.yaml"], input=patch, text=True, check=True, cwd=shop)
    assert (shop / "before" / "routes.yaml").read_text() == EDITED
    assert run("history", "3", "--diff", "1").err == "edit 3 has the files of edit 1\n"


def test_what_is_not_kept_is_refused(run: Run, shop: Path) -> None:
    done = run("history", "7")
    assert (done.code, "edit 7 is not kept" in done.err, "no edit is recorded" in done.err) == (1, True, True)
    offer(ROUTES)
    assert "hint: edits 1 to 1 are kept" in run("history", "7", "--diff", "1").err
    assert run("history", "1", "--file", "nothing").code == 1
    assert run("history", "--diff", "1").code == 2
    assert run("history", "one").code == 2


SECRETS = ("hunter2", "s3cr3t")


def test_credentials_are_in_no_output_and_in_no_stored_row(
    run: Run, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "s3cr3t")
    text = ROUTES.replace("sqlite:///shop.db", "redis://u:hunter2@127.0.0.1:1/0?token=${TOKEN}")
    faulty = text.replace("concurrency", "concurency")
    offer(text, faulty, text.replace("concurrency: 2", "concurrency: 3"))
    rows = [path.read_bytes() for path in shop.glob("shop.db*")]
    for path in shop.glob("*.yaml"):
        path.unlink()
    outputs = []
    for command in (
        ["history"],
        ["history", "--json"],
        *(["history", str(number)] for number in (1, 2, 3)),
        ["history", "3", "--diff", "1"],
        ["history", "1", "--json"],
        ["audit", "--json"],
        ["status"],
    ):
        done = run(*command, "--backend", "sqlite:///shop.db")
        assert done.code == 0
        outputs += [done.out, done.err]
    assert not any(secret in output for secret in SECRETS for output in outputs)
    assert not any(secret.encode() in row for secret in SECRETS for row in rows)
    done = run("history", "1", "--backend", "sqlite:///shop.db")
    assert "backend: redis://***@127.0.0.1:1/0?token=${TOKEN}\n" in done.out
    assert "warning: credentials are not stored: put them back in place of ***" in done.err


def test_commands_speak_of_the_accepted_edit_while_the_file_is_faulty(run: Run, shop: Path) -> None:
    text = ROUTES + "#redis://u:hunter2@elsewhere/0\n"  # so the stored file is not the one on disk
    offer(text, FAULTY)
    done = run("status", "--json")
    assert "routes.yaml has faults; edit 1, accepted" in done.err
    assert "orders.created/billing" in [route["route"] for route in done.json["routes"] if route["in_file"]]
    assert done.json["revision"] == run("history", "--json").json[1]["record"]["revision"]
    assert "edit 1, accepted" in run("doctor").err
    assert run("publish", "orders.created", '{"id": 1, "total": "5"}').code == 1
    assert run("publish", "orders.created", '{"id": 1, "total": 5}').code == 0


def test_drop_is_in_the_audit(run: Run, shop: Path) -> None:
    async def subscribe(backend) -> None:
        await (await backend.subscribe("orders.created", "old")).close()

    on_backend(subscribe)
    run("publish", "orders.created", '{"id": 1, "total": 5}')
    assert run("drop", "orders.created/old", "--yes", "--why", "moved to invoices").code == 0
    (act,) = run("audit", "--json").json
    assert (act["action"], act["target"], act["why"]) == ("drop", "orders.created/old", "moved to invoices")
    assert act["result"] == "dropped 1 message and 0 dead letters"


def test_workers_that_run_an_edit_are_counted_at_the_last_one_of_its_revision(run: Run, shop: Path) -> None:
    offer(ROUTES, EDITED, ROUTES)
    revision = run("history", "--json").json[0]["record"]["revision"]
    report = msgspec.json.encode(WorkerReport("here", 1, 0.0, revision))
    on_backend(lambda backend: backend.put(WORKERS, "w", report, ttl=60))
    assert [edit["running"] for edit in run("history", "--json").json] == [1, 0, 0]
    assert "accepted, run by 1 worker" in run("history").out


def test_history_without_a_key_value_store_is_refused() -> None:
    class Plain(MemoryBackend):
        features = Features(key_value=False)

    with pytest.raises(OperationRefused, match="cannot keep a history"):
        asyncio.run(read_history(Plain()))


def test_output_that_has_emptied_the_routes_file_is_explained(run: Run, shop: Path) -> None:
    offer(ROUTES)
    command = f"{sys.executable} -m abe_router history 1 > routes.yaml"
    done = subprocess.run(["/bin/sh", "-c", command], cwd=shop, capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert "the shell has emptied routes.yaml" in done.stderr
    assert run("history", "1", "--backend", "sqlite:///shop.db").out == ROUTES
