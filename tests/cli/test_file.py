"""The commands that need no backend: check, routes, plan, explain, schema, init."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from abe_router.config.language.model import EntryModel, OptionsModel

from .conftest import ROUTES, Run

ROOT = Path(__file__).parents[2]
FAULTY = ROUTES.replace("concurrency", "concurency")


def test_check_prints_ok_on_stderr(run: Run) -> None:
    done = run("check", "--no-import")
    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines()[-1] == "ok: 3 routes, 3 keys"


def test_check_shows_a_fault_with_its_position_and_a_hint(run: Run, shop: Path) -> None:
    (shop / "routes.yaml").write_text(FAULTY)
    done = run("check", "--no-import")
    assert done.code == 78
    assert "routes.yaml:10:9" in done.out
    assert "did you mean `concurrency`?" in done.out
    assert done.err == "error: routes.yaml has faults\n"


def test_check_prints_json_and_github_annotations(run: Run, shop: Path) -> None:
    assert run("check", "--no-import", "--format", "json").json == []
    (shop / "routes.yaml").write_text(FAULTY)
    (fault,) = run("check", "--no-import", "--format", "json").json
    assert (fault["line"], fault["column"], fault["severity"]) == (10, 9, "error")
    assert run("check", "--no-import", "--format", "github").out.startswith(
        "::error file=routes.yaml,line=10,col=9,"
    )


def test_check_exits_0_with_warnings_only(run: Run, shop: Path) -> None:
    (shop / "routes.yaml").write_text(ROUTES.replace("orders.#", "stock.#"))
    done = run("check", "--no-import")
    assert done.code == 0
    assert "warning[W" in done.out


def test_check_imports_handlers_and_sends_their_output_to_stderr(shop: Path) -> None:
    (shop / "shop_handlers.py").write_text("print('imported')\ndef charge(): ...")
    command = [sys.executable, "-m", "abe_router", "check", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert {fault["code"] for fault in json.loads(done.stdout)} == {"R305"}
    assert "imported" in done.stderr


def test_check_refuses_handlers_that_are_not_allowed(run: Run) -> None:
    done = run("check", "--allow-handlers", "other.*")
    assert done.code == 78
    assert "is not allowed" in done.out


def test_routes_lists_routes_and_keys_without_consumers(run: Run) -> None:
    done = run("routes")
    assert (done.code, done.err) == (0, "")
    heading, *rows = done.out.splitlines()
    assert heading.split() == ["route", "handler", "concurrency", "schema", "options"]
    assert [row.split()[0] for row in rows] == [
        "orders.created/billing",
        "orders.created/audit",
        "orders.#/trail",
        "payments.settled",
    ]
    assert "(publish only)" in rows[3]


def test_routes_json_has_every_option(run: Run) -> None:
    audit = run("routes", "--json").json[1]
    assert audit["route"] == "orders.created/audit"
    assert (audit["concurrency"], audit["start"], audit["schemas"]) == (2, "earliest", ["order.json"])
    assert audit["when"] == {"properties": {"total": {"minimum": 100}}}
    options = {*OptionsModel.__struct_fields__, *EntryModel.__struct_fields__} - {"schema_", "consumers"}
    assert options <= audit.keys()


def test_routes_shows_order_by_and_the_options_of_the_key(run: Run, shop: Path) -> None:
    ordered = ROUTES.replace("concurrency: 2", "order_by: /customer/id")
    known = "  orders.created:\n    id: /id\n    dedupe: 7d\n    retain: 2d\n"
    settled = "  payments.settled: {retain: 1h}"
    edited = ordered.replace("  orders.created:\n", known).replace("  payments.settled: {}", settled)
    (shop / "routes.yaml").write_text(edited)
    _, _, audit, _, publish_only = run("routes").out.splitlines()
    assert audit.endswith("order by /customer/id, id /id, dedupe 7d, retain 2d")
    assert publish_only.endswith("retain 1h")
    values = run("routes", "--json").json[1]
    assert values["order_by"] == "/customer/id"
    assert (values["id"], values["dedupe"], values["retain"]) == ("/id", 7 * 86_400.0, 2 * 86_400.0)


def test_plan_shows_what_starts_stops_restarts_and_stays(run: Run, shop: Path) -> None:
    edited = (
        ROUTES.replace("concurrency: 2", "concurrency: 3\n        retry: {attempts: 2}")
        .replace("trail:", "follow:")
        .replace("shop.db", "other.db")
    )
    (shop / "edited.yaml").write_text(edited)
    plan = run("plan", "routes.yaml", "edited.yaml", "--json").json
    assert plan["start"] == ["orders.#/follow"]
    assert plan["stop"] == ["orders.#/trail"]
    assert plan["keep"] == ["orders.created/billing"]
    (restart,) = plan["restart"]
    assert restart["route"] == "orders.created/audit"
    assert {(c["field"], c["old"], c["new"]) for c in restart["changes"]} == {
        ("concurrency", "2", "3"),
        ("retry.attempts", "5", "2"),
    }
    assert [change["field"] for change in plan["restart_process"]] == ["backend"]
    text = run("plan", "routes.yaml", "edited.yaml")
    assert text.code == 0
    assert "restart          orders.created/audit    " in text.out
    assert "concurrency 2 -> 3" in text.out


def test_plan_of_the_same_file_keeps_everything(run: Run) -> None:
    plan = run("plan", "routes.yaml", "routes.yaml", "--json").json
    assert len(plan["keep"]) == 3
    assert plan["start"] == plan["stop"] == plan["restart"] == []


def test_batches_and_rates_are_shown_by_routes_plan_and_explain(run: Run, shop: Path) -> None:
    edited = ROUTES.replace("concurrency: 2", "rate: 90/m\n        batch: {size: 500, wait: 1s}")
    (shop / "edited.yaml").write_text(edited)
    restart = run("plan", "routes.yaml", "edited.yaml").out
    assert "batch none -> up to 500 in 1s, rate none -> 90/m" in restart
    assert "batch up to 500 in 1s, rate 90/m" in run("routes", "edited.yaml").out
    audit = run("routes", "edited.yaml", "--json").json[1]
    assert (audit["batch"], audit["rate"]) == ({"size": 500, "wait": 1.0}, 1.5)
    text = run("explain", "orders.created", '{"id": 1, "total": 200}', "-c", "edited.yaml").out
    assert "  in batches of up to 500 in 1s\n  at most 90/m, all processes together\n" in text


def test_explain_shows_which_routes_receive_a_message_and_why(run: Run) -> None:
    done = run("explain", "orders.created", '{"id": 1, "total": 20}')
    assert done.code == 0
    assert "schema order.json on orders.created: ok" in done.out
    assert "route orders.created/billing (shop_handlers:charge): delivered" in done.out
    assert "route orders.created/audit (shop_handlers:charge): not delivered" in done.out
    assert "`when` does not match: at /total: minimum: expected" in done.out
    assert "retried at the latest after 200ms, 600ms, 1.4s, 3s" in done.out
    assert "if it raises Reject: dead letter at once" in done.out


def test_explain_exits_1_when_the_message_would_be_refused(run: Run) -> None:
    done = run("explain", "orders.created", '{"id": 1, "total": -1}')
    assert done.code == 1
    assert "at /total: minimum: expected" in done.out
    assert run("explain", "nobody.cares", "{}").code == 1
    assert run("explain", "orders.created", "{").code == 1


def test_explain_json_has_every_route(run: Run) -> None:
    found = run("explain", "orders.paid", "{}", "--json").json
    assert (found["accepted"], found["schemas"]) == (True, [])
    routes = {route["route"]: route for route in found["routes"]}
    assert routes["orders.created/billing"]["why"] == ["word 2 is `paid`, not `created`"]
    assert routes["orders.#/trail"]["delivered"]
    assert routes["orders.#/trail"]["attempts"] == pytest.approx([0, 0.2, 0.6, 1.4, 3.0])


def test_schema_prints_a_json_schema(run: Run) -> None:
    assert run("schema").json["$schema"].startswith("https://json-schema.org/")


def test_init_creates_a_folder_where_check_tests_and_the_examples_of_every_help_work(
    run: Run, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run("init", "new shop")
    assert done.code == 0
    assert done.out.splitlines()[0] == "new shop/routes.yaml"
    assert "cd 'new shop'" in done.err
    assert json.loads((shop / "new shop" / "routes.schema.json").read_text())
    monkeypatch.chdir(shop / "new shop")
    assert "ok: 2 routes, 1 key" in run("check").err
    assert "3 passed" in run("test").err
    helps = "".join(run(*command, "--help").out for command in ((), ("publish",), ("explain",)))
    examples = re.findall(r"abe-router (\w+ orders\.created '\{.*\}')", helps)
    assert len(examples) == 3
    for example in examples:
        assert run(*shlex.split(example)).code == 0
    serve = [sys.executable, "-m", "abe_router", "serve", "--once"]
    served = subprocess.run(serve, capture_output=True, text=True, check=False)
    assert served.returncode == 0, served.stderr
    assert served.stdout.count("charged 250 for order 7") == 2
    sys.modules.pop("handlers")


def test_init_overwrites_nothing(run: Run, shop: Path) -> None:
    done = run("init")
    assert done.code == 1
    assert done.err.startswith("error: `routes.yaml` already exists")
    assert (shop / "routes.yaml").read_text() == ROUTES
    assert not (shop / "routes.schema.json").exists()


@pytest.mark.parametrize("command", [("check",), ("publish", "orders.created", "{}"), ("serve", "--once")])
@pytest.mark.parametrize("name", ["--backend", "ABE_ROUTER_BACKEND"])
def test_bad_backend_url_error_names_the_option_or_variable(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], name: str
) -> None:
    if name == "--backend":
        command = (*command, name, "nope")
    else:
        monkeypatch.setenv(name, "nope")
    done = run(*command)
    assert (done.code, done.out) == (78, "")
    error = "`nope` is not a backend URL: it begins with a scheme, as `memory://`"
    assert done.err == f"error: {name}: {error}\n"


def test_host_and_port_without_a_scheme_get_a_hint(run: Run) -> None:
    done = run("check", "--backend", "localhost:6379")
    assert done.err.endswith("\nhint: did you mean `redis://localhost:6379`?\n")


def test_bad_backend_url_of_the_environment_is_not_a_fault_of_the_file(
    run: Run, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shop / "routes.yaml").write_text("routes: {}\n")
    monkeypatch.setenv("ABE_ROUTER_BACKEND", "nope://")
    assert run("routes").err.startswith("error: ABE_ROUTER_BACKEND: no backend provider takes `nope://`; ")


def test_unreadable_file_is_a_diagnostic_with_its_code(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: bool) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.access", lambda *_, **__: False)
    monkeypatch.setattr("abe_router.config.building.loader.Source.read", refuse)
    done = run("check")
    assert done.code == 78
    assert done.out.startswith("error[R001]: the file cannot be read: permission denied\n")


def test_check_counts_one_route_in_the_singular(run: Run, shop: Path) -> None:
    (shop / "routes.yaml").write_text(
        "routes: {orders.created: {consumers: {billing: shop_handlers:charge}}}"
    )
    assert run("check").err == "ok: 1 route, 1 key\n"
