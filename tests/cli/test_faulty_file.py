"""Commands that tell the truth while the routes file has faults: the last accepted edit counts."""

from __future__ import annotations

import asyncio
import re
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from abe_router.application import Application
from abe_router.backend import Backend
from abe_router.backends import make_backend
from abe_router.config.building.loader import Loader
from abe_router.runtime.edit_record import EDITS, FILES
from abe_router.runtime.heartbeat import RESTARTS, WORKERS, DiagnosticReport, WorkerReport
from tests.limits import HANG

from .conftest import ROUTES, Run, on_backend, published

FAULTY = ROUTES.replace("concurrency", "concurency")


def serve(path: Path = Path("routes.yaml")) -> None:
    """Run the routes until the edit is recorded."""

    async def inside() -> None:
        table = Loader(path, import_handlers=False).load()
        backend = make_backend(table.backend, prefix=table.prefix)
        recorded, put = asyncio.Event(), backend.put

        async def watched_put(bucket: str, *args: Any, **options: Any) -> int:
            revision = await put(bucket, *args, **options)
            if bucket == EDITS:
                recorded.set()
            return revision

        backend.put = watched_put  # type: ignore[method-assign]
        application = Application(table, backend)
        await application.start()
        async with asyncio.timeout(HANG):
            await recorded.wait()
        await application.stop(0.0)

    asyncio.run(inside())


@pytest.fixture
def served(shop: Path) -> Path:
    """Return the shop after a router has accepted its file."""
    serve()
    return shop


#: What an editor, a full disk or a wrong copy makes of a file, byte by byte.
DAMAGED = {
    "an unknown option": FAULTY.encode(),
    "not closed": f"{ROUTES}  refunds: [\n".encode(),
    "UTF-16": ROUTES.encode("utf-16"),
    "not UTF-8": f"{ROUTES}# ".encode() + b"caf\xe9\n",
    "NUL bytes at the end": ROUTES.encode() + bytes(4096),
    "a NUL byte in a key": ROUTES.replace("orders.created", "orders.\0created").encode(),
    "too many values": f"{ROUTES}a: &a [{'1, ' * 1000}]\nb: [{'*a, ' * 101}]\n".encode(),
    "too large": f"{ROUTES}# {'x' * (2 << 20)}\n".encode(),
}


@pytest.mark.parametrize("faulty", DAMAGED.values(), ids=DAMAGED)
def test_last_accepted_edit_counts_while_the_file_has_faults(run: Run, served: Path, faulty: bytes) -> None:
    truth = run("status", "--json")
    assert truth.code == 0
    (served / "routes.yaml").write_bytes(faulty)
    done = run("status", "--json")
    assert (done.code, done.out) == (0, truth.out)
    warning = r"warning: routes\.yaml has faults; edit 1, accepted \d+s ago, counts; run `abe-router check`\n"
    assert re.fullmatch(warning, done.err)
    assert "not in the file" not in run("status").out

    assert run("publish", "orders.created", '{"id": 1, "total": "5"}').code == 1
    assert run("publish", "unknown", "{}").code == 1
    assert published() == []
    assert run("publish", "orders.created", '{"id": 1, "total": 5}').code == 0
    assert [message.payload for message in published()] == [{"id": 1, "total": 5}]

    done = run("doctor")
    assert done.code == 78
    assert "D110" in done.out  # the group `probe` of this test
    assert "billing" not in done.out


def test_routes_are_unknown_before_the_first_edit_is_recorded(run: Run, shop: Path) -> None:
    run("publish", "orders.created", '{"id": 1, "total": 5}')
    (shop / "routes.yaml").write_text(FAULTY)
    done = run("status")
    assert done.code == 0
    assert "no accepted edit is known, so its routes are unknown" in done.err
    done = run("publish", "orders.created", '{"id": 2, "total": 5}')
    assert done.code == 78
    assert "unknown option `concurency`" in done.err
    assert run("doctor").code == 78


def test_status_shows_the_routes_that_workers_run_when_they_reject_a_handler(run: Run, served: Path) -> None:
    truth = run("status", "--json").json
    (served / "routes.yaml").write_text(ROUTES.replace("billing: shop_handlers", "invoices: none"))
    assert "orders.created/invoices" in run("status").out
    fault = DiagnosticReport("routes.yaml", 7, 17, "R302", "no module named `none`")
    for name, rejected in (("w1", (fault,)), ("w2", ())):
        report = WorkerReport("here", 1, 0.0, truth["revision"], rejected=rejected)
        on_backend(lambda backend, n=name, r=report: backend.put(WORKERS, n, msgspec.json.encode(r), ttl=60))
    done = run("status", "--json")
    assert done.err == "warning: the workers rejected routes.yaml; edit 1 counts\n"
    assert (done.json["edit"], done.json["routes"]) == (1, truth["routes"])
    text = run("status").out
    assert "orders.created/invoices" not in text
    assert "routes.yaml:7:17: error[R302]: no module named `none`" in text

    schema = served / "schemas" / "order.json"
    schema.write_text(schema.read_text().replace("number", "string"))
    for payload, code in (('{"id": 1, "total": "5"}', 1), ('{"id": 1, "total": 5}', 0)):
        done = run("publish", "orders.created", payload)
        assert done.code == code, done.err
        assert done.err.startswith("warning: the workers rejected routes.yaml; edit 1 counts\n")
    assert "the workers rejected routes.yaml; edit 1 counts" in run("doctor").err


def test_publish_and_doctor_say_which_backend_is_served_until_the_restart(run: Run, served: Path) -> None:
    edited = ROUTES.replace("shop.db", "new.db")

    async def edit_while_it_runs() -> None:
        loader = Loader(Path("routes.yaml"), import_handlers=False)
        table = loader.load()
        application = Application(table, make_backend(table.backend), loader=loader)
        await application.start()
        await asyncio.to_thread((served / "routes.yaml").write_text, edited)
        async with asyncio.timeout(20), make_backend("sqlite:///new.db") as backend:
            while not await backend.entries(RESTARTS):
                await asyncio.sleep(0.02)
        await application.stop(0.0)

    asyncio.run(edit_while_it_runs())
    warning = "shop.db, the former backend of routes.yaml, until it is restarted\n"
    done = run("publish", "orders.created", '{"id": 1, "total": 5}')
    assert (done.code, done.err.endswith(warning)) == (0, True)
    assert warning in run("doctor").err

    async def restart() -> None:
        report = WorkerReport(
            "here", 1, 0.0, Loader(Path("routes.yaml"), import_handlers=False).load().revision
        )
        async with make_backend("sqlite:///new.db") as backend:
            await backend.put(WORKERS, "w1", msgspec.json.encode(report), ttl=60)

    asyncio.run(restart())
    assert run("publish", "orders.created", '{"id": 2, "total": 5}').err == ""


def test_edit_of_the_file_at_this_path_counts_and_not_that_of_another(run: Run, served: Path) -> None:
    (served / "other.yaml").write_text(ROUTES.replace("billing", "invoices"))
    serve(Path("other.yaml"))
    (served / "routes.yaml").write_text(FAULTY)
    names = [route["route"] for route in run("status", "--json").json["routes"] if route["in_file"]]
    assert "orders.created/billing" in names
    (served / "routes.yaml").rename(served / "third.yaml")
    assert "no accepted edit is known" in run("status", "-c", "third.yaml").err


def test_no_secret_of_the_environment_enters_a_record(
    run: Run, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_SECRET", "s3cret")
    (shop / "routes.yaml").write_text(ROUTES.replace("sqlite:///shop.db", "sqlite:///${SHOP_SECRET}.db"))
    serve()

    async def values(backend: Backend) -> list[bytes]:
        return [e.value for bucket in (EDITS, FILES) for e in (await backend.entries(bucket)).values()]

    record, *bodies = on_backend(values, "sqlite:///s3cret.db")
    assert b"s3cret" not in record
    contents = [zlib.decompress(body) for body in bodies]
    assert (shop / "routes.yaml").read_bytes() in contents
    assert not any(b"s3cret" in data for data in contents)


def test_unset_variable_in_the_backend_is_named(run: Run, shop: Path) -> None:
    (shop / "routes.yaml").write_text(ROUTES.replace("sqlite:///shop.db", "${BACKEND_URL}"))
    for command in (["status"], ["doctor"], ["publish", "orders.created", "{}"], ["dead", "list"]):
        done = run(*command)
        assert done.code == 78
        assert "variable `BACKEND_URL` is not set" in done.err


def test_doctor_knows_the_consumers_of_the_file_before_the_first_serve(run: Run) -> None:
    run("publish", "orders.created", '{"id": 1, "total": 5}')
    run("publish", "payments.settled", "{}")
    out = run("doctor").out
    assert "1 message waits for the first worker: `orders.created` 1\n" in out
    assert "1 message waits under keys that no subscription matches: `payments.settled` 1\n" in out
