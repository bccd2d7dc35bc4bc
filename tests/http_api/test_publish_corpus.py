"""Publishing over HTTP and by the command line: the same messages are accepted, for the same reasons."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from abe_router.backends import make_backend
from abe_router.cli.root import run as run_command
from abe_router.messages.message import MAX_BYTES
from abe_router.operations.access import load_table

from .running import serving

ROUTES = """\
backend: sqlite:///shop.db
schemas: .
routes:
  orders.created: {schema: order.json}
  orders.#: {}
  payments.settled: {id: /payment/id, dedupe: 1h}
  refunds.issued: {dedupe: 1h}
"""
ORDER = {
    "type": "object",
    "required": ["id", "total"],
    "properties": {
        "id": {"type": "integer", "minimum": 1},
        "total": {"type": "number", "minimum": 0},
        "card": {"type": "string", "pattern": "^[0-9]{16}$", "x-sensitive": True},
        "lines": {"type": "array", "items": {"type": "object", "required": ["sku"]}, "maxItems": 3},
    },
    "additionalProperties": False,
}
ORDERS = "orders.created"
CASES: list[tuple[str, bytes]] = [
    (ORDERS, b'{"id": 1, "total": 5}'),
    (ORDERS, b'\xef\xbb\xbf{"id": 1, "total": 5}'),
    (ORDERS, b'  {"id": 1, "total": 1.10}\n'),
    (ORDERS, b'{"id": 123456789012345678901234567890, "total": 1e308}'),
    (ORDERS, b'{"id": 1, "total": 1e400}'),
    (ORDERS, b'{"id": 1, "total": NaN}'),
    (ORDERS, b'{"id": 1, "total": -5}'),
    (ORDERS, b'{"id": 0, "total": -5, "extra": true}'),
    (ORDERS, b'{"total": "much"}'),
    (ORDERS, b'{"id": 1, "total": 5, "card": "4929 not a card"}'),
    (ORDERS, b'{"id": 1, "total": 5, "card": 4929123412341234}'),
    (ORDERS, b'{"id": 1, "total": 5, "lines": [{}, {"sku": 1}, {}, {}]}'),
    (ORDERS, b'{"id": 1, "id": 2, "total": 5}'),
    (ORDERS, b"{"),
    (ORDERS, b'{"id": 1, "total": 5}}'),
    (ORDERS, b"[1, 2"),
    (ORDERS, b"'single'"),
    (ORDERS, b"\xff\xfe{\x00}\x00"),
    (ORDERS, b'{"id": 1, "total": "\xc3("}'),
    (ORDERS, b"null"),
    (ORDERS, b"7"),
    (ORDERS, b"[" * 200 + b"]" * 200),
    ("orders.paid", b"[" * 127 + b"]" * 127),
    ("orders.paid", b"[" * 200 + b"]" * 200),
    ("orders.paid", b'"\\ud800"'),
    ("orders.paid", b'"' + b"x" * (MAX_BYTES - 2) + b'"'),
    ("orders.paid", b"1" * 5000),
    ("orders.paid", b'"\\u0000\\u001b[31m"'),
    ("orders.paid", b'"https://ada:secret@example.org"'),
    ("orders", b"{}"),
    ("order.created", b"{}"),
    ("stock.low", b"{}"),
    ("orders..created", b"{}"),
    ("orders.#", b"{}"),
    ("orders.caf\u00e9", b"{}"),
    ("payments.settled", b'{"payment": {"id": "p-1"}}'),
    ("payments.settled", b'{"payment": {"id": "p-1"}}'),
    ("payments.settled", b'{"payment": {"id": 7.0}}'),
    ("payments.settled", b'{"payment": {}}'),
    ("payments.settled", b'{"payment": {"id": ""}}'),
    ("payments.settled", b'{"payment": {"id": [1]}}'),
    ("payments.settled", b'{"payment": {"id": "' + b"x" * 256 + b'"}}'),
    ("refunds.issued", b"{}"),
]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "routes.yaml").write_text(ROUTES)
    (tmp_path / "order.json").write_text(json.dumps(ORDER))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_payload_has_the_result_of_the_command_line(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_command: list[tuple[int, str, str]] = []
    for key, body in CASES:
        (shop / "body.json").write_bytes(body)
        code = run_command(["publish", key, "@body.json", "--json"])
        by_command.append((code, *capsys.readouterr()))

    async def by_http() -> list[Any]:
        async with serving(load_table(Path("routes.yaml")), make_backend("sqlite:///http.db")) as api:
            return [await api.post(f"/v1/publish/{quote(key)}", body) for key, body in CASES]

    answers = asyncio.run(by_http())
    for (key, body), (code, out, err), answer in zip(CASES, by_command, answers, strict=True):
        said = (key, body[:60], err, answer.text[:500])
        if code == 0:
            duplicate = json.loads(out)["duplicate"]
            assert (answer.status_code, answer.json().get("duplicate", False)) == (
                200 if duplicate else 202,
                duplicate,
            ), said
            continue
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json", said
        assert answer.status_code == problem["status"], said
        assert _comparable(problem["detail"]) in _comparable(err), said
        for error in problem.get("errors", []):
            words = "at {}: {}: expected {}, found {}"
            pointer = error["pointer"] or "(root)"
            line = words.format(pointer, error["keyword"], error["expected"], error["found"])
            assert line in err, said
        assert len(problem.get("errors", [])) == err.count(": expected "), said
    assert {answer.status_code for answer in answers} == {200, 202, 400, 404, 422}


def _comparable(text: str) -> str:
    """Return a reason without what names the source of the payload."""
    return text.replace("the body", "`body.json`")


@pytest.mark.parametrize("key", [None, ORDERS])
def test_lines_have_the_results_of_the_command_line(
    shop: Path, capsys: pytest.CaptureFixture[str], key: str | None
) -> None:
    lines = [body.replace(b"\n", b" ") for each, body in CASES if key in (None, each)]
    if key is None:
        keyed = zip([each for each, _ in CASES], lines, strict=True)
        lines = [b'{"key": "%b", "payload": %b}' % (each.encode(), line) for each, line in keyed]
        lines += [
            b'{"key": "orders.paid"}',
            b'{"payload": 1}',
            b'{"key": "orders.paid", "payload": 1, "x": 1}',
        ]
    text = b"\n\n".join(lines)
    (shop / "lines.ndjson").write_bytes(text)
    command = ["publish", "--ndjson", "lines.ndjson", "--json", *([key] if key else [])]
    run_command(command)
    out, err = capsys.readouterr()
    counts, rejected = json.loads(out), [json.loads(line) for line in err.splitlines()]

    async def by_http() -> Any:
        async with serving(load_table(Path("routes.yaml")), make_backend("sqlite:///http.db")) as api:
            path = f"/v1/publish/{key}" if key else "/v1/publish"
            return await api.post(path, text, "application/x-ndjson")

    answer = asyncio.run(by_http())
    assert answer.status_code == 200
    results = [json.loads(line) for line in answer.text.splitlines()]
    assert [result["line"] for result in results] == sorted(result["line"] for result in results)
    assert len(results) == len(lines)
    problems = {result["line"]: result for result in results if "status" in result}
    assert set(problems) == {each["line"] for each in rejected}
    for each in rejected:
        problem = problems[each["line"]]
        assert len(problem.get("errors", [])) == len(each["violations"])
        assert problem["detail"] == each["reason"] or len(each["violations"]) > 1
        for error, violation in zip(problem.get("errors", []), each["violations"], strict=True):
            assert error["pointer"] == violation["pointer"]
            assert (error["keyword"], error["expected"], error["found"]) == (
                violation["keyword"],
                violation["expected"],
                violation["found"],
            )
    assert sum(result.get("duplicate", False) for result in results) == counts["duplicates"]
    assert "4929" not in answer.text
