"""`explain`: its reasons, and that the consumers decide as it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from abe_router.errors import KeyInvalid, PayloadMalformed
from abe_router.messages.message import encode, new_message
from abe_router.messages.pattern import matches
from abe_router.operations.access import load_table
from abe_router.operations.explain import explain, explain_mismatch
from abe_router.testing import TestRouter

ROUTES = """\
routes:
  orders.created:
    schema: order.json
    consumers:
      plain: {handler: "operations_handlers:handle"}
      filtered: {handler: "operations_handlers:handle", when: {required: [total]}}
      dropping: {handler: "operations_handlers:handle", on_invalid: drop}
      lenient: {handler: "operations_handlers:handle", on_invalid: deliver}
      silent: {handler: "operations_handlers:handle", dead_letter: false}
      paused: {handler: "operations_handlers:handle", paused: true}
  orders.*:
    consumers: {wild: "operations_handlers:handle"}
  stock.#:
    consumers: {other: "operations_handlers:handle"}
"""
ORDER = {"type": "object", "required": ["id"]}


@pytest.fixture
def routes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "order.json").write_text(json.dumps(ORDER))
    (tmp_path / "operations_handlers.py").write_text("def handle(payload): ...\n")
    path = tmp_path / "routes.yaml"
    path.write_text("schemas: .\n" + ROUTES)
    monkeypatch.syspath_prepend(tmp_path)
    return path


@pytest.mark.parametrize("payload", [{"id": 1}, {"id": 1, "total": 2}, {"total": 2}, {}])
async def test_consumers_decide_as_explained(routes: Path, payload: dict[str, Any]) -> None:
    table = load_table(routes)
    body = encode(payload)
    async with TestRouter(routes) as router:
        # Appended to the backend itself: publishing would refuse an invalid payload.
        await router.backend.append([new_message("orders.created", body)])
        await router.quiet()
        for route in explain(table, "orders.created", body).routes:
            assert bool(router.got(route.route)) is route.delivered, route
            is_dead = any("dead letter at once" in why for why in route.why)
            if "the route is paused" not in route.why:
                assert bool(await router.dead(route.route)) is is_dead, route


def test_refused_message_has_a_reason(routes: Path) -> None:
    table = load_table(routes)
    refused = explain(table, "orders.created", b"{}")
    assert not refused.accepted
    assert "required" in str(refused.reason)
    assert [result.schema for result in refused.schemas if result.violations] == ["order.json"]
    unknown = explain(table, "nothing.known", b"{}")
    assert (unknown.accepted, unknown.deduplication) == (False, None)
    assert explain(table, "nothing.known", b"{}", allow_unrouted=True).accepted


def test_malformed_key_and_body_are_errors(routes: Path) -> None:
    table = load_table(routes)
    with pytest.raises(KeyInvalid):
        explain(table, "orders..created", b"{}")
    with pytest.raises(PayloadMalformed):
        explain(table, "orders.created", b"{")


@pytest.mark.parametrize(
    ("pattern", "key", "why"),
    [
        ("a.b", "a.c", "word 2 is `c`, not `b`"),
        ("a.*.c", "a.b.d", "word 3 is `d`, not `c`"),
        ("a.b", "a", "the key ends where word 2 should be `b`"),
        ("a", "a.b", "the key goes on after word 1 with `b`"),
        ("a.#.z", "a.b.c", "word 3 is `c`, not `z`"),
        ("#.y.z", "z", "the key has too few words"),
        ("a.#.b.#", "a.c", "no words in place of `#` make it match"),
    ],
)
def test_mismatch_names_the_first_word_that_differs(pattern: str, key: str, why: str) -> None:
    assert not matches(pattern, key)
    assert explain_mismatch(pattern, key) == why
