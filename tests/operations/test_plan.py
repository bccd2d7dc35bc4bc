"""`plan_reload`: what differs between two tables, as values and as text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from abe_router.operations.plan import OptionChange, option_changes, plan_reload
from abe_router.routing.handler import unimported_handler
from abe_router.routing.policies import Batch, Emit, RetryPolicy
from abe_router.routing.route import Route
from abe_router.routing.table import RouteTable
from abe_router.schema import SchemaFolder

ROUTE = Route("orders.created", "billing", unimported_handler("shop:charge", ()))


def test_plan_has_the_routes_to_start_stop_restart_and_keep() -> None:
    kept, gone = replace(ROUTE, group="kept"), replace(ROUTE, group="gone")
    added, changed = replace(ROUTE, group="added"), replace(ROUTE, concurrency=3)
    plan = plan_reload(RouteTable((ROUTE, kept, gone)), RouteTable((changed, kept, added)))
    assert (plan.start, plan.stop, plan.keep) == ((added,), (gone,), (kept,))
    (change,) = plan.restart
    assert (change.old, change.new) == (ROUTE, changed)
    assert change.options == (OptionChange("concurrency", 10, 3),)
    assert plan.to_json()["restart"] == [
        {
            "route": "orders.created/billing",
            "changes": [{"field": "concurrency", "old": "10", "new": "3"}],
        }
    ]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"timeout": 90.5}, "timeout 30s → 90.5s"),
        ({"retry": RetryPolicy(initial=1.0)}, "retry.initial 200ms → 1s"),
        ({"retry": RetryPolicy(jitter=False)}, "retry.jitter true → false"),
        ({"max_deliveries": 7}, "max_deliveries default → 7"),
        ({"start": float("inf")}, "start earliest → latest"),
        ({"batch": Batch(500, 1.0)}, "batch none → up to 500 in 1s"),
        ({"rate": 1.5}, "rate none → 90/m"),
        ({"emit": Emit("orders.charged")}, "emit none → orders.charged"),
        ({"order_by": "/customer"}, "order_by none → /customer"),
        ({"when": SchemaFolder(Path()).inline({"type": "object"}, "when")}, 'when none → {"type":"object"}'),
    ],
)
def test_change_is_written_as_in_the_routes_file(changed: dict[str, object], text: str) -> None:
    (change,) = option_changes(ROUTE, replace(ROUTE, **changed))
    assert str(change) == text


def test_change_has_the_values_and_their_text() -> None:
    (change,) = option_changes(ROUTE, replace(ROUTE, timeout=60.0))
    assert (change.before, change.after) == (30.0, 60.0)
    assert (change.old, change.new) == ("30s", "1m")


def test_backend_and_prefix_need_a_restart_of_the_process() -> None:
    old = RouteTable(backend="redis://me:secret@localhost/0")
    new = RouteTable(backend="redis://me:other@elsewhere/0", prefix="shop:")
    assert [str(change) for change in plan_reload(old, new).process] == [
        "backend redis://***@localhost/0 → redis://***@elsewhere/0",
        "prefix '' → 'shop:'",
    ]
