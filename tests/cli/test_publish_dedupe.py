"""`publish` of duplicates, one message at a time and line by line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from abe_router.backends.sqlite import SQLiteBackend
from abe_router.errors import BackendUnavailable
from abe_router.messages.message import Message

from .conftest import ROUTES, Run, published

ENTRIES = """\
  tickets.opened: {id: /number, dedupe: 10m}
  tickets.closed: {dedupe: 1h}
  tickets.moved: {id: Idempotency-Key}
"""


@pytest.fixture(autouse=True)
def _deduplicated(shop: Path) -> None:
    (shop / "routes.yaml").write_text(ROUTES + ENTRIES)


def test_duplicate_is_reported_on_stderr_and_is_not_an_error(run: Run) -> None:
    first = run("publish", "tickets.opened", '{"number": 7}')
    again = run("publish", "tickets.opened", '{"number": 7.0}')
    assert (first.code, first.out, first.err) == (0, "7\n", "")
    assert (again.code, again.out) == (0, "7\n")
    assert again.err == "duplicate: a message with this id was published less than 10m ago\n"
    assert len(published("tickets.opened")) == 1


def test_json_says_whether_the_message_is_a_duplicate(run: Run) -> None:
    found = [run("publish", "tickets.closed", "{}", "--id", "A-7", "--json").json for _ in range(2)]
    assert [each["duplicate"] for each in found] == [False, True]
    assert [each["id"] for each in found] == ["A-7", "A-7"]


def test_message_without_an_id_is_never_a_duplicate(run: Run) -> None:
    for _ in range(2):
        assert run("publish", "tickets.closed", "{}").err == ""
    assert len(published("tickets.closed")) == 2


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (("tickets.opened", "{}"), "the value at /number is to be its id, and is not there"),
        (("tickets.opened", '{"number": [7]}'), "an array, neither text nor an integer"),
        (("tickets.opened", '{"number": 7}', "--id", "8"), "the one given, `8`, is another"),
        (("tickets.moved", "{}"), "the header `Idempotency-Key` is to be its id, and is not there"),
        (("tickets.closed", "{}", "--id", ""), "the id given is to be its id, and is empty"),
    ],
)
def test_message_without_a_valid_id_is_refused_with_the_reason(
    run: Run, args: tuple[str, ...], reason: str
) -> None:
    done = run("publish", *args)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"error: message for `{args[0]}` has no valid id: ")
    assert reason in done.err
    assert run("publish", "tickets.moved", "{}", "--header", "Idempotency-Key=A").out == "A\n"


def test_duplicate_lines_are_counted_separately(run: Run, shop: Path) -> None:
    lines = ['{"number": 1}', '{"number": 2}', '{"number": 1}', '{"name": 3}']
    (shop / "tickets.ndjson").write_text("\n".join(lines))
    done = run("publish", "tickets.opened", "--ndjson", "tickets.ndjson")
    assert (done.code, done.out) == (1, "")
    refused, summary = done.err.splitlines()
    assert refused.startswith(
        "tickets.ndjson:4: message for `tickets.opened` has no valid id: the value at /n"
    )
    assert summary == "published 2, duplicates 1, rejected 1"
    again = run("publish", "tickets.opened", "--ndjson", "tickets.ndjson", "--json")
    assert again.json == {"published": 0, "duplicates": 3, "rejected": 1, "unknown": 0}
    assert len(published("tickets.opened")) == 2


def test_lines_with_and_without_ids_can_be_mixed(run: Run, shop: Path) -> None:
    lines = [
        {"key": "tickets.closed", "payload": 1, "id": "A"},
        {"key": "tickets.closed", "payload": 2},
        {"key": "orders.paid", "payload": 3, "id": "A"},
        {"key": "tickets.moved", "payload": 4, "headers": {"Idempotency-Key": "A"}},
    ]
    (shop / "events.ndjson").write_text("\n".join(map(json.dumps, lines)))
    assert run("publish", "--ndjson", "events.ndjson").err == "published 4, rejected 0\n"
    assert run("publish", "--ndjson", "events.ndjson").err == "published 3, duplicates 1, rejected 0\n"
    assert [message.payload for message in published("tickets.closed")] == [1, 2, 2]


def _lose_the_first_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the backend keep the messages of the first call and raise BackendUnavailable."""
    append, calls = SQLiteBackend.append_within, iter(range(1_000))

    async def failing(
        self: SQLiteBackend, windowed: Sequence[tuple[Message, float]], seconds: float
    ) -> Sequence[Message]:
        duplicates = await append(self, windowed, seconds)
        if next(calls) == 0:
            raise BackendUnavailable("the connection was lost")
        return duplicates

    monkeypatch.setattr(SQLiteBackend, "append_within", failing)


def test_publishing_again_after_an_unknown_outcome_creates_no_duplicates(
    run: Run, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lose_the_first_reply(monkeypatch)
    (shop / "tickets.ndjson").write_text("\n".join(f'{{"number": {n}}}' for n in range(700)))
    failed = run("publish", "tickets.opened", "--ndjson", "tickets.ndjson")
    assert failed.code == 69
    assert failed.err.splitlines()[-1] == (
        "hint: publish again from there: within 10m no message of them is duplicated"
    )
    done = run("publish", "tickets.opened", "--ndjson", "tickets.ndjson")
    assert (done.code, done.err) == (0, "published 200, duplicates 500, rejected 0\n")
    assert [m.payload["number"] for m in published("tickets.opened")] == list(range(700))


def test_hint_after_an_unknown_outcome_names_the_deduplication_window(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lose_the_first_reply(monkeypatch)
    failed = run("publish", "tickets.opened", '{"number": 7}')
    assert failed.code == 69
    assert failed.err.splitlines()[-1] == (
        "hint: publish it again with --id 7; within 10m that creates no duplicate"
    )
    assert run("publish", "tickets.opened", '{"number": 7}', "--id", "7").err.startswith("duplicate: ")


def test_explain_shows_the_id_and_its_deduplication_window(run: Run) -> None:
    done = run("explain", "tickets.opened", '{"number": 7}')
    assert done.out.splitlines()[0] == "id 7: duplicates are dropped for 10m"
    assert run("explain", "tickets.opened", "{}").code == 1
    header = ("--header", "Idempotency-Key=A")
    done = run("explain", "tickets.moved", "{}", *header)
    assert done.out.splitlines()[0] == "id A: duplicates are not detected"
    found = run("explain", "tickets.opened", '{"number": 7}', "--json").json["deduplication"]
    assert found == {"id": "7", "window": 600.0}
