"""`abe-router dead`: list, show, replay and purge."""

from __future__ import annotations

import pytest

from abe_router.backend import DeadLetter, Reason
from abe_router.cli.dead import lines
from abe_router.messages.message import Message
from abe_router.operations.dead_letters import detail
from abe_router.routing.table import RouteTable

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


@pytest.mark.parametrize("choice", [(), ("17", "--all")])
def test_replay_needs_either_ids_or_all(run: Run, choice: tuple[str, ...]) -> None:
    assert run("dead", "replay", BILLING, *choice).code == 2


def test_route_of_the_file_that_was_never_served_has_no_dead_letters(run: Run) -> None:
    run("publish", "orders.created", '{"id": 1, "total": 1}')
    done = run("dead", "list", BILLING)
    assert (done.code, done.out, done.err) == (0, "", "no dead letters\n")
    assert run("dead", "list", BILLING, "--json").json == []
    assert run("dead", "replay", BILLING, "--all").err == "replayed 0\n"
    assert "has no dead letter `17`" in run("dead", "show", BILLING, "17").err
    assert run("dead", "list", "orders.created/biling").code == 1
