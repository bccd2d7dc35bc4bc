"""The commands that look after a running system: status, dead, drop."""

from __future__ import annotations

import socket
from pathlib import Path

import msgspec
import pytest

from .conftest import ROUTES, Run, bury, on_backend, published

BILLING = "orders.created/billing"


def test_status_counts_each_route_and_says_what_is_odd(run: Run) -> None:
    bury({"id": 1, "total": 0}, route="orders.created/former")
    found = run("status", "--json").json
    routes = {route["route"]: route for route in found["routes"]}
    assert routes[BILLING]["ready"] is None
    former = routes["orders.created/former"]
    assert (former["in_file"], former["ready"], former["dead"]) == (False, 0, 1)
    text = run("status")
    assert text.code == 0
    assert "never seen" in text.out
    assert "not in the file" in text.out
    assert text.err == "no worker is running\n"


def test_status_shows_what_workers_announce(run: Run) -> None:
    fault = {"path": "routes.yaml", "line": 3, "column": 5, "code": "R101", "message": "unknown option"}
    state = {
        "host": "host\x1b[2J",
        "pid": 7,
        "started_at": 0.0,
        "revision": "abcdef",
        "routes": {BILLING: {"in_hand": 3, "connected": False}},
        "receipt": {"number": 2, "added": ["a/b"], "removed": [], "changed": [], "kept": 4, "seconds": 0.01},
        "rejected": [fault],
    }

    async def announce(backend):
        await backend.announce("w1", msgspec.json.encode(state), 60)
        await backend.announce("w2", b"of another version", 60)

    on_backend(announce)
    text = run("status").out
    assert r"host\x1b[2J:7" in text
    assert "abcdef (not this file's)" in text
    assert "0 of 1" in text
    assert "2: 1 added, 4 kept" in text
    assert "routes.yaml:3:5: error[R101]: unknown option" in text
    assert run("status", "--json").json["workers"] == {"w1": state, "w2": None}


def test_the_probe_asks_for_workers_of_this_host_that_are_connected(run: Run) -> None:
    def announce(number: int, host: str, *, connected: bool) -> None:
        seat = {BILLING: {"in_hand": 0, "connected": connected}}
        state = {
            "host": host,
            "pid": number,
            "started_at": 0.0,
            "revision": "",
            "number": number,
            "routes": seat,
        }
        on_backend(lambda backend: backend.announce(f"w{number}", msgspec.json.encode(state), 60))

    announce(1, "elsewhere", connected=True)
    done = run("status", "--here")
    assert (done.code, done.out) == (1, "")
    assert done.err == f"no worker runs on {socket.gethostname()}\n"
    announce(2, socket.gethostname(), connected=True)
    assert run("status", "--here").code == 0
    announce(3, socket.gethostname(), connected=False)
    done = run("status", "--here")
    assert done.code == 1
    assert done.err.startswith("1 of 2 workers on ")
    assert f"{socket.gethostname()}:3 [3] " in run("status").out


def test_a_backend_is_enough_without_any_file(run: Run, shop: Path) -> None:
    bury({"id": 1, "total": 0})
    (shop / "routes.yaml").unlink()
    assert run("status").code == 78
    assert run("status", "--backend", "sqlite:///shop.db", "--json").json["routes"][0]["dead"] == 1
    assert len(run("dead", "list", "--backend", "sqlite:///shop.db", "--json").json) == 1


def test_a_faulty_edit_of_the_file_does_not_hide_the_running_system(run: Run, shop: Path) -> None:
    bury({"id": 1, "total": 0})
    (shop / "routes.yaml").write_text(ROUTES.replace("concurrency", "concurency"))
    done = run("status", "--json")
    assert done.code == 0
    assert done.json["routes"][0]["dead"] == 1
    assert done.err.startswith("warning: routes.yaml has faults")
    assert len(run("dead", "list", "--json").json) == 1
    assert run("drop", BILLING, "--yes").code == 78
    (shop / "routes.yaml").write_text("routes: [")
    assert run("status").code == 78
    assert run("status", "--backend", "sqlite:///shop.db").code == 0


def test_a_url_that_no_backend_takes_is_no_fault_of_the_file(run: Run) -> None:
    done = run("status", "--backend", "foo://x")
    assert done.code == 78
    assert done.err.startswith("error: --backend: no backend provider takes `foo://x`")


def test_dead_list_pages_through_all_and_shows_no_payload(run: Run) -> None:
    bury(*({"id": n, "total": 0} for n in range(1200)))
    found = run("dead", "list", "--json")
    assert len({letter["id"] for letter in found.json}) == 1200
    assert "total" not in found.out
    text = run("dead", "list", BILLING)
    assert len(text.out.splitlines()) == 1201
    assert "rejected: Reject: nothing to charge" in text.out


def test_dead_list_of_nothing_is_talk_not_data(run: Run) -> None:
    assert published() == []
    done = run("dead", "list")
    assert (done.code, done.out, done.err) == (0, "", "no dead letters\n")


def test_a_route_that_nobody_has_seen_is_an_error_with_a_suggestion(run: Run) -> None:
    bury({"id": 1, "total": 0})
    done = run("dead", "list", "orders.created/biling")
    assert done.code == 1
    assert done.err == (
        "error: the backend has never seen route `orders.created/biling`\n"
        "hint: did you mean `orders.created/billing`?\n"
    )


def test_dead_show_has_payload_headers_and_traceback(run: Run) -> None:
    bury({"id": 12345678901234567890123, "note": "\u202eevil"})
    (letter,) = run("dead", "list", "--json").json
    text = run("dead", "show", BILLING, letter["id"]).out
    assert "12345678901234567890123" in text
    assert r"\u202eevil" in text
    assert "header source test" in text
    assert "Traceback: Reject" in text
    whole = run("dead", "show", BILLING, letter["id"], "--json")
    assert whole.json["payload"]["id"] == 12345678901234567890123
    assert run("dead", "show", BILLING, "nonsense").code == 1


def test_a_payload_that_is_not_json_is_shown_as_text(run: Run) -> None:
    from abe_router.backend import DeadLetter, Reason
    from abe_router.cli.letters import lines, values
    from abe_router.messages.message import Message

    reason = Reason("malformed", "PayloadMalformed", "payload is not JSON")
    letter = DeadLetter(BILLING, Message("1", "orders.created", b"{\xff\x1b"), reason, 1, 1, 0.0, 0.0, id="1")
    assert values(letter)["payload"] == "{\\xff\x1b"
    assert r"  {\xff\x1b" in list(lines(letter))


def test_dead_replay_hands_the_chosen_back_to_their_route(run: Run) -> None:
    bury({"id": 1}, {"id": 2})
    first, _ = run("dead", "list", "--json").json
    done = run("dead", "replay", BILLING, first["id"], "nonsense")
    assert (done.code, done.err) == (1, "replayed 1, 1 not found\n")
    assert run("dead", "replay", BILLING, "--all").err == "replayed 1\n"
    assert [message.payload["id"] for message in published(group="billing")] == [1, 2]
    assert run("dead", "list").out == ""


def test_dead_purge_of_all_asks_first(run: Run) -> None:
    bury({"id": 1}, {"id": 2})
    done = run("dead", "purge", BILLING, "--all")
    assert (done.code, done.err) == (1, "error: nothing was deleted\nhint: --yes does not ask\n")
    assert run("dead", "purge", BILLING, "--all", "--yes").err == "purged 2\n"
    assert run("dead", "list").out == ""


@pytest.mark.parametrize("choice", [(), ("17", "--all")])
def test_ids_or_all_but_not_both(run: Run, choice: tuple[str, ...]) -> None:
    assert run("dead", "replay", BILLING, *choice).code == 2


def test_drop_forgets_a_route_that_left_the_file_and_no_other(run: Run, shop: Path) -> None:
    bury({"id": 1})
    assert "is in routes.yaml" in run("drop", BILLING, "--yes").err
    (shop / "routes.yaml").write_text(ROUTES.replace("billing:", "invoices:"))
    assert run("drop", BILLING).code == 1
    assert run("drop", BILLING, "--yes").err == f"dropped {BILLING}\n"
    assert BILLING not in [route["route"] for route in run("status", "--json").json["routes"]]


@pytest.mark.parametrize("command", [("status",), ("status", "--json"), ("dead", "list")])
def test_looking_at_a_file_that_is_not_there_does_not_make_it(
    run: Run, shop: Path, command: tuple[str, ...]
) -> None:
    done = run(*command, "--backend", "sqlite:///none.db")
    assert done.code == 0
    assert done.err.startswith("`none.db` does not exist yet: nothing was published to it\n")
    assert not (shop / "none.db").exists()


def test_a_folder_that_is_not_there_is_an_error_as_ever(run: Run) -> None:
    assert run("status", "--backend", "sqlite:///none/none.db").code == 69


def test_a_route_of_the_file_that_nobody_has_served_has_no_dead_letters(run: Run) -> None:
    run("publish", "orders.created", '{"id": 1, "total": 1}')
    done = run("dead", "list", BILLING)
    assert (done.code, done.out, done.err) == (0, "", "no dead letters\n")
    assert run("dead", "list", BILLING, "--json").json == []
    assert run("dead", "replay", BILLING, "--all").err == "replayed 0\n"
    assert "has no dead letter `17`" in run("dead", "show", BILLING, "17").err
    assert run("dead", "list", "orders.created/biling").code == 1
