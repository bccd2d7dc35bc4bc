"""`abe-router dead`: list, show, replay and purge."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from abe_router.backend import DeadLetter, Reason
from abe_router.cli.dead import lines
from abe_router.messages.message import Message
from abe_router.operations.dead_letters import detail
from abe_router.routing.table import RouteTable
from tests.limits import HANG

from .conftest import Run, dead_letter, published

BILLING = "orders.created/billing"


def test_list_shows_all_pages_without_payloads(run: Run) -> None:
    dead_letter(*({"id": n, "total": 0} for n in range(1200)))
    found = run("dead", "list", "--json")
    assert len({row["id"] for row in found.json}) == 1200
    assert "total" not in found.out
    text = run("dead", "list", BILLING, "--limit", "0")
    assert len(text.out.splitlines()) == 1201
    assert "rejected: Reject: nothing to charge" in text.out
    assert len(run("dead", "list", "--json", "--limit", "7").json) == 7
    first = run("dead", "list", BILLING)
    assert len(first.out.splitlines()) == 1001
    last = found.json[999]["id"]
    assert first.err == f"there are more: --after {last}, or --limit 0 for all\n"
    rest = run("dead", "list", BILLING, "--after", last)
    assert (len(rest.out.splitlines()), rest.err) == (201, "")
    assert run("dead", "list").err == "there are more: name a route, or --limit 0 for all\n"


def test_filters_select_by_kind_time_key_and_message(run: Run) -> None:
    dead_letter({"id": 1}, {"id": 2})
    one, two = run("dead", "list", "--json").json
    for given in (["--kind", "rejected"], ["--since", "2000-01-01T00:00:00Z"], ["--key", "orders.*"]):
        assert run("dead", "list", *given, "--json").json == [one, two]
    for given in (["--kind", "failed"], ["--since", "1h"], ["--key", "payments.#"]):
        assert run("dead", "list", *given, "--json").json == []
    assert run("dead", "list", "--id", two["message_id"], "--json").json == [two]
    assert two["message_id"] in run("dead", "list").out


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (["--since", "soon"], "`soon` is neither an age, such as 2h, nor a time of ISO 8601"),
        (["--key", "a..b"], "`a..b` is not a key or a pattern"),
        (["--after", "7"], "--after needs a route"),
    ],
)
def test_malformed_filter_is_wrong_usage(run: Run, given: list[str], error: str) -> None:
    done = run("dead", "list", *given)
    assert done.code == 2
    assert error in done.err


def test_empty_list_prints_a_message_and_no_data(run: Run) -> None:
    assert published() == []
    done = run("dead", "list")
    assert (done.code, done.out, done.err) == (0, "", "no dead letters\n")


def test_unknown_route_exits_1_with_a_suggestion(run: Run) -> None:
    dead_letter({"id": 1, "total": 0})
    done = run("dead", "list", "orders.created/biling")
    assert done.code == 1
    assert done.err == (
        "error: the backend has never seen route `orders.created/biling`\n"
        "hint: did you mean `orders.created/billing`?\n"
    )


def test_show_prints_payload_headers_and_traceback(run: Run) -> None:
    dead_letter({"id": 12345678901234567890123, "note": "\u202eevil"})
    (found,) = run("dead", "list", "--json").json
    text = run("dead", "show", BILLING, found["id"]).out
    assert "12345678901234567890123" in text
    assert r"\u202eevil" in text
    assert "header source test" in text
    assert "Traceback: Reject" in text
    whole = run("dead", "show", BILLING, found["id"], "--json")
    assert whole.json["payload"]["id"] == 12345678901234567890123
    assert run("dead", "show", BILLING, "nonsense").code == 1


def test_payload_that_is_not_json_is_shown_as_text(run: Run) -> None:
    reason = Reason("malformed", "PayloadMalformed", "payload is not JSON")
    found = DeadLetter(BILLING, Message("1", "orders.created", b"{\xff\x1b"), reason, 1, 1, 0.0, 0.0, id="1")
    shown = detail(found, RouteTable(backend="memory://", revision="1"))
    assert shown.payload == "{\\xff\x1b"
    assert r"  {\xff\x1b" in list(lines(shown))


def test_replay_moves_the_selected_dead_letters_back_to_their_route(run: Run) -> None:
    dead_letter({"id": 1}, {"id": 2})
    first, _ = run("dead", "list", "--json").json
    done = run("dead", "replay", BILLING, first["id"], "nonsense")
    assert (done.code, done.err) == (1, "replayed 1, 1 not found\n")
    assert run("dead", "replay", BILLING, "--all").err == "replayed 1\n"
    assert [message.payload["id"] for message in published(group="billing")] == [1, 2]
    assert run("dead", "list").out == ""


def test_purge_of_all_asks_for_confirmation(run: Run) -> None:
    dead_letter({"id": 1}, {"id": 2})
    done = run("dead", "purge", BILLING, "--all")
    assert (done.code, done.err) == (
        1,
        "error: nothing was deleted\nhint: use --yes to delete without a question\n",
    )
    assert run("dead", "purge", BILLING, "--all", "--yes").err == "purged 2\n"
    assert run("dead", "list").out == ""


@pytest.mark.parametrize(
    "given",
    [
        (BILLING,),
        (BILLING, "17", "--all"),
        (BILLING, "--all", "--kind", "failed"),
        (BILLING, "--all", "--stop-after", "3"),
        (BILLING, "--all", "--rate", "fast"),
        ("--all",),
        ("--continue", "1", "--all"),
        ("--continue", "1", "--stop", "1"),
    ],
)
def test_replay_with_an_unclear_selection_is_wrong_usage(run: Run, given: tuple[str, ...]) -> None:
    assert run("dead", "replay", *given).code == 2


def test_groups_show_each_fault_and_replay_takes_one(run: Run) -> None:
    dead_letter({"id": 1}, {"id": 2})
    text = run("dead", "groups").out
    assert text.splitlines()[1].split()[1:3] == [BILLING, "2"]
    assert "rejected: Reject: nothing to charge" in text
    (group,) = run("dead", "groups", BILLING, "--json").json["groups"]
    name = group["group"]
    assert (group["count"], name[:3]) == (2, "v1-")
    assert len(run("dead", "list", "--group", name, "--json").json) == 2
    assert run("dead", "groups", "--kind", "failed").err == "no dead letters\n"
    dry = run("dead", "replay", BILLING, "--group", name, "--dry-run")
    assert (dry.code, dry.err) == (0, "would replay 2\n")
    assert name in dry.out
    assert run("dead", "replay", BILLING, "--group", name, "--first", "1").err == "replayed 1\n"
    assert run("dead", "purge", BILLING, "--group", name, "--yes").err == "purged 1\n"
    (replay,) = run("dead", "replays", "--json").json
    assert (replay["number"], replay["state"], replay["replayed"]) == (1, "done", 1)
    assert "1/1" in run("dead", "replays").out
    assert "replay 1 is done" in run("dead", "replay", "--continue", "1").err
    assert "replay 1 is done" in run("dead", "replay", "--stop", "1").err
    assert "there is no replay 9" in run("dead", "replay", "--continue", "9").err


def test_try_takes_another_file(run: Run, shop: Path) -> None:
    dead_letter({"id": 1, "total": 5}, {"id": 2})
    done = run("dead", "try", BILLING)
    assert (done.code, done.out.splitlines()) == (
        1,
        [f"{BILLING}: 1: still invalid; 1: reaches the handler", "  1: required `total` at (root)"],
    )
    (shop / "new.yaml").write_text((shop / "routes.yaml").read_text().replace("    schema: order.json\n", ""))
    done = run("dead", "try", BILLING, "-c", "new.yaml")
    assert (done.code, done.out) == (0, f"{BILLING}: 2: reach the handler\n")
    (shop / "new.yaml").write_text("routes: 17")
    assert run("dead", "try", "-c", "new.yaml").code == 78


def test_sensitive_values_are_masked(run: Run, shop: Path) -> None:
    (shop / "schemas" / "order.json").write_text('{"properties": {"card": {"x-sensitive": true}}}')
    dead_letter({"id": 1, "card": "4111-1111-1111-1111"})
    (found,) = run("dead", "list", "--json").json
    for given in ([], ["--json"], ["--backend", "sqlite:///shop.db", "-c", "no.yaml"]):
        shown = run("dead", "show", BILLING, found["id"], *given)
        assert shown.code == 0
        assert "4111-1111-1111" not in shown.out
        assert "(masked)" in shown.out


def test_interrupted_replay_says_how_to_continue(run: Run) -> None:
    dead_letter(*({"id": n} for n in range(12)))
    slowly = [sys.executable, "-m", "abe_router", "dead", "replay", BILLING, "--all", "--rate", "20/s"]
    process = subprocess.Popen(slowly, stderr=subprocess.PIPE, text=True)
    while len(run("dead", "list", "--json").json) > 9:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=HANG)
    assert process.returncode == 130
    assert "continue with `dead replay --continue 1`" in err
    (replay,) = run("dead", "replays", "--json").json
    assert replay["state"] == "stopped"
    done = run("dead", "replay", "--continue", "1", "--json")
    assert (done.code, done.json["state"], done.json["replayed"]) == (0, "done", 12)
    assert [message.payload["id"] for message in published(group="billing")] == list(range(12))


def test_route_of_the_file_that_was_never_served_has_no_dead_letters(run: Run) -> None:
    run("publish", "orders.created", '{"id": 1, "total": 1}')
    done = run("dead", "list", BILLING)
    assert (done.code, done.out, done.err) == (0, "", "no dead letters\n")
    assert run("dead", "list", BILLING, "--json").json == []
    assert run("dead", "replay", BILLING, "--all").err == "replayed 0\n"
    assert "has no dead letter `17`" in run("dead", "show", BILLING, "17").err
    assert run("dead", "list", "orders.created/biling").code == 1


def test_republish_publishes_the_changed_message_once_and_purges_the_dead_letter(run: Run) -> None:
    dead_letter({"id": 1, "total": 0})
    draft = run("dead", "republish", BILLING, "1", "--draft")
    assert msgspec.json.decode(draft.out) == {"id": 1, "total": 0}
    changed = ("dead", "republish", BILLING, "1", '{"id": 1, "total": 5}')
    refused = run(*changed[:-1], '{"id": 1, "total": -5}')
    assert (refused.code, "/total" in refused.err) == (1, True)
    first = run(*changed, "--header", "source=desk")
    assert (first.code, first.err) == (0, "changed /total\nchanged header source\n")
    again = run(*changed, "--purge", "--json")
    assert again.json == {
        "id": first.out.strip(),
        "duplicate": True,
        "changed": ["/total"],
        "purged": True,
        "failure": "",
    }
    assert [message.payload["total"] for message in published()] == [0, 5]
    assert run(*changed).code == 1
    for given in ((), ("--draft", "{}")):
        assert run(*changed[:-1], *given).code == 2
    assert run("dead", "republish", BILLING, "1", "--draft", "--backend", "sqlite:///shop.db").code == 1
