"""`publish`: one message, or a stream of lines that are accepted or rejected one by one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from abe_router.backends.sqlite import SQLiteBackend
from abe_router.cli.publish_lines import read_lines
from abe_router.errors import BackendUnavailable
from abe_router.operations.bulk import MAX_LINE
from tests.limits import HANG

from .conftest import Run, on_backend, published


def piped(*args: str, stdin: bytes) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "abe_router", *args]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=30)


def test_publish_prints_the_id_and_appends_the_message(run: Run) -> None:
    done = run("publish", "orders.created", '{"id": 1, "total": 5}', "--header", "source=test")
    (message,) = published()
    assert (done.code, done.out, done.err) == (0, f"{message.id}\n", "")
    assert (message.payload, message.headers) == ({"id": 1, "total": 5}, {"source": "test"})


def test_id_can_be_given(run: Run) -> None:
    assert run("publish", "orders.created", '{"id": 1, "total": 5}', "--id", "order-1").out == "order-1\n"
    assert published()[0].id == "order-1"


def test_payload_bytes_are_unchanged(run: Run) -> None:
    body = '{"total":1.10, "id": 123456789012345678901234567890}'
    assert run("publish", "orders.created", body).code == 0
    assert published()[0].body == body.encode()


def test_payload_is_read_from_a_file(run: Run, shop: Path) -> None:
    (shop / "order.json").write_text('{"id": 1, "total": 5}')
    assert run("publish", "orders.created", "@order.json").code == 0
    assert run("publish", "orders.created", "@missing.json").code == 2


def test_invalid_payload_is_refused_with_every_violation(run: Run) -> None:
    done = run("publish", "orders.created", '{"id": "x", "total": -1}')
    assert (done.code, done.out) == (1, "")
    assert "at /id: type:" in done.err
    assert "at /total: minimum:" in done.err
    assert "error: payload for `orders.created` breaks its schema in 2 places" in done.err


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (("orders.created", "{"), "payload is not JSON"),
        (("order.created", "{}"), "did you mean `orders.created`?"),
        (("orders..created", "{}"), "is not a routing key"),
    ],
)
def test_refusal_is_one_line_of_error(run: Run, args: tuple[str, str], reason: str) -> None:
    done = run("publish", *args)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: ")
    assert reason in done.err
    assert len(done.err.splitlines()) == 1


def test_unknown_key_can_be_allowed(run: Run) -> None:
    assert run("publish", "stock.low", "{}", "--allow-unrouted").code == 0
    assert len(published("stock.low")) == 1


@pytest.mark.parametrize(
    "args", [(), ("orders.created", "{}", "--ndjson", "x"), ("orders.created", "{}", "--header", "x")]
)
def test_contradictory_arguments_exit_2(run: Run, args: tuple[str, ...]) -> None:
    done = run("publish", *args)
    assert done.code == 2
    assert done.err.splitlines()[-1] == "hint: see `abe-router publish --help`"


def test_memory_backend_is_refused(run: Run) -> None:
    done = run("publish", "orders.created", '{"id": 1, "total": 5}', "--backend", "memory://")
    assert done.code == 78
    assert "lives in one process" in done.err
    assert "hint: use sqlite:///PATH" in done.err


def test_unreachable_backend_exits_69(run: Run) -> None:
    done = run(
        "publish", "orders.created", '{"id": 1, "total": 5}', "--backend", "redis://u:s3cret@127.0.0.1:1"
    )
    assert (done.code, done.out) == (69, "")
    assert "s3cret" not in done.err
    assert done.err.splitlines()[-2].startswith("error: ")


def test_lines_with_keys_are_published_and_rejected_lines_are_numbered(run: Run, shop: Path) -> None:
    lines = [
        '{"key": "orders.created", "payload": {"id": 1, "total": 5}, "headers": {"a": "b"}, "id": "one"}',
        "",
        '{"key": "orders.created", "payload": {"id": 2, "total": -5}}',
        '{"key": "orders.created", "payload": {"id": 3, "total": 5}, "extra": 1}',
        "not json",
        '{"key": "orders.paid", "payload": {"id": 12345678901234567890123}}',
    ]
    (shop / "events.ndjson").write_text("\n".join(lines))
    done = run("publish", "--ndjson", "events.ndjson", "--header", "c=d")
    assert (done.code, done.out) == (1, "")
    third, fourth, fifth, summary = done.err.splitlines()
    assert third.startswith("events.ndjson:3: payload for `orders.created` is invalid: at /total: minimum:")
    assert fourth.startswith('events.ndjson:4: the line is not {"key": ..., "payload": ...}')
    assert "extra" in fourth
    assert fifth.startswith("events.ndjson:5: ")
    assert summary == "published 2, rejected 3"
    first, last = published("orders.#")
    assert (first.id, first.headers) == ("one", {"a": "b", "c": "d"})
    assert last.body == b'{"id": 12345678901234567890123}'


def test_lines_are_payloads_when_the_key_is_given(run: Run, shop: Path) -> None:
    lines = [f'{{"id": {n}, "total": {n}}}' for n in range(1200)]
    (shop / "orders.ndjson").write_text("\ufeff" + "\r\n".join(lines) + "\r\n")
    done = run("publish", "orders.created", "--ndjson", "orders.ndjson")
    assert (done.code, done.err) == (0, "published 1,200, rejected 0\n")
    assert [message.payload["id"] for message in published()] == list(range(1000))


def test_json_prints_rejected_lines_on_stderr_and_the_result_on_stdout(run: Run, shop: Path) -> None:
    (shop / "orders.ndjson").write_text('{"id": 1, "total": 1}\n{"id": 2, "total": -1}\n')
    done = run("publish", "orders.created", "--ndjson", "orders.ndjson", "--json")
    assert done.json == {"published": 1, "duplicates": 0, "rejected": 1, "unknown": 0}
    rejected = json.loads(done.err)
    assert (rejected["file"], rejected["line"], rejected["key"]) == ("orders.ndjson", 2, "orders.created")
    assert rejected["violations"][0]["pointer"] == "/total"


def _fail_appends(monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    """Make every append of the backend fail after `after` successful ones."""
    calls = iter(range(1_000))

    def failing(name: str) -> None:
        append = getattr(SQLiteBackend, name)

        async def call(*args: Any) -> Any:
            result = await append(*args)
            if next(calls) >= after:
                raise BackendUnavailable("the connection was lost")
            return result

        monkeypatch.setattr(SQLiteBackend, name, call)

    failing("append")
    failing("append_within")


def test_lines_with_an_unknown_outcome_are_named(
    run: Run, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fail_appends(monkeypatch, after=1)
    (shop / "orders.ndjson").write_text('{"id": 1, "total": 1}\n' * 1200)
    done = run("publish", "orders.created", "--ndjson", "orders.ndjson")
    assert done.code == 69
    assert done.err == (
        "published 500, rejected 0, unknown 500\n"
        "error: orders.ndjson:501-1000: it is unknown whether these 500 messages were published: "
        "the connection was lost\n"
        "hint: the lines before them were published, the lines after them were not\n"
    )


def test_message_with_an_unknown_outcome_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_appends(monkeypatch, after=0)
    done = run("publish", "orders.created", '{"id": 1, "total": 5}', "--id", "one")
    assert (done.code, done.out) == (69, "")
    assert "it is unknown whether message one was published" in done.err


def test_stdin_is_read_as_a_payload_or_as_lines(shop: Path) -> None:
    one = piped("publish", "orders.created", stdin=b'{"id": 1, "total": 5}\n')
    assert one.returncode == 0, one.stderr
    many = piped("publish", "orders.created", "--ndjson", "-", stdin=b'{"id": 2, "total": 5}\n{}')
    assert many.returncode == 1
    assert many.stderr.startswith(b"-:2: payload for `orders.created` is invalid: at (root): required:")
    assert [message.payload["id"] for message in published()] == [1, 2]


@pytest.mark.parametrize(
    ("stdin", "error"),
    [
        (b"", "stdin is empty, so there is no payload"),
        (" \n".encode("utf-8-sig"), "stdin is empty, so there is no payload"),
        ('{"id": 1}'.encode("utf-16"), "stdin is UTF-16, and JSON is UTF-8"),
    ],
)
def test_stdin_without_a_payload_exits_2_with_the_reason(shop: Path, stdin: bytes, error: str) -> None:
    done = piped("publish", "orders.created", stdin=stdin)
    assert (done.returncode, done.stderr.decode().splitlines()[0]) == (2, f"error: {error}")


def test_byte_order_mark_is_removed_from_the_payload(shop: Path) -> None:
    done = piped("publish", "orders.created", "-", stdin='{"id": 1, "total": 5}'.encode("utf-8-sig"))
    assert done.returncode == 0, done.stderr
    assert published()[0].body == b'{"id": 1, "total": 5}'


def test_endless_stdin_is_refused_for_its_length(shop: Path) -> None:
    with Path("/dev/zero").open("rb") as zeros:
        command = [sys.executable, "-m", "abe_router", "publish", "orders.created", "-"]
        done = subprocess.run(command, stdin=zeros, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "over the limit of" in done.stderr


def test_line_is_published_before_the_next_one_arrives(shop: Path) -> None:
    args = [sys.executable, "-m", "abe_router", "publish", "orders.created", "--ndjson", "-"]
    with subprocess.Popen(args, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as publisher:
        assert publisher.stdin is not None
        publisher.stdin.write(b'{"id": 1, "total": 5}\n')
        publisher.stdin.flush()

        async def arrives(backend):
            subscription = await backend.subscribe("orders.created", "probe")
            return await subscription.fetch(1, 2 * HANG)

        assert on_backend(arrives)[0].message.payload["id"] == 1
        _, err = publisher.communicate(b'{"id": 2, "total": 5}\n', timeout=HANG)
    assert err == b"published 2, rejected 0\n"


def test_lines_of_any_length_are_read_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"a\n" + b"x" * (3 * MAX_LINE) + b"\nb\n\n" + b"y" * (MAX_LINE + 1))
    with path.open("rb", buffering=0) as stream:
        found = [line for lines in read_lines(stream, 2) for line in lines]
    assert [(line.number, line.text) for line in found] == [(1, b"a"), (2, None), (3, b"b"), (5, None)]


def test_printed_id_is_one_line(run: Run) -> None:
    done = run("publish", "orders.created", '{"id": 1, "total": 5}', "--id", "one\ntwo\x1b[2J")
    assert (done.code, done.out) == (0, r"one\ntwo\x1b[2J" + "\n")
    assert published()[0].id == "one\ntwo\x1b[2J"


@pytest.mark.parametrize("empty", ["", " \n"])
def test_argument_without_a_payload_exits_2_with_the_reason(run: Run, empty: str) -> None:
    done = run("publish", "orders.created", empty)
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[0] == "error: the argument is empty, so there is no payload"
