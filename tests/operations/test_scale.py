"""The numbers for an autoscaler, and the metrics of a status."""

from __future__ import annotations

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from abe_router.observe.tally import ProcessCounts, RouteCounts
from abe_router.operations.metrics import Metrics
from abe_router.operations.scale import Scale, scale_of
from abe_router.operations.status import Status
from abe_router.operations.subscriptions import SubscriptionState
from abe_router.runtime.override import Override

NOW = 1000.0
STATES = (
    SubscriptionState("orders.created/billing", True, 5, 2, 1, 0, oldest_at=990.0, next_due_at=1060.0),
    SubscriptionState("orders.paid/billing", True, 1, 0, 4, 0, oldest_at=998.5, next_due_at=1030.0),
    SubscriptionState(
        "orders.paid/paused", True, 50, 1, 9, 0, oldest_at=5.0, next_due_at=1001.0, paused=True
    ),
    SubscriptionState("stock.#/audit", True, 7, 0, 0, 0, oldest_at=2000.0),
    SubscriptionState("stock.late/new", True),
    SubscriptionState("orders.old/gone", False, 90, 0, 0, 0, oldest_at=1.0),
)
OVERRIDDEN = SubscriptionState(
    "orders.late/billing",
    True,
    30,
    2,
    0,
    0,
    oldest_at=3.0,
    overrides=(Override("pause", "orders.late/billing", 0.0, 60.0, "ada@host", "gateway down"),),
)
COUNTS = {
    "orders.created/billing": RouteCounts(running=2, slots=10),
    "orders.paid/billing": RouteCounts(running=10, slots=10),
    "stock.#/audit": RouteCounts(slots=5),
}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("#", Scale(16, 5, 10.0, 30.0, 0.48)),
        ("orders.#", Scale(9, 5, 10.0, 30.0, 0.6)),
        ("orders.created", Scale(7, 1, 10.0, 60.0, 0.2)),
        ("stock.*", Scale(7, 0, 0.0, None, 0.0)),
        ("nothing", Scale(0, 0, 0.0, None, None)),
    ],
)
def test_routes_that_match_the_pattern_are_added_up(pattern, expected):
    assert scale_of(STATES, COUNTS, pattern, now=NOW) == expected


def test_a_route_that_an_override_pauses_counts_with_what_is_in_flight():
    assert scale_of([OVERRIDDEN], {}, now=NOW) == Scale(2, 0, 0.0, None, None)


def test_a_retry_that_is_overdue_is_due_now():
    (state,) = [each for each in STATES if each.route == "orders.created/billing"]
    assert scale_of([state], {}, now=2000.0).next_due_seconds == 0.0


class Counters:
    def counts(self):
        return {"orders.created/billing": RouteCounts(outcomes={"handled": {"": 3}})}

    def process_counts(self):
        return ProcessCounts(stalls=2)


def test_metrics_have_the_subscriptions_of_the_file_and_count_the_others():
    limit = Override("limit", STATES[0].route, 0.0, 60.0, "ada@host", "gateway slow", rate=5.0)
    slow = msgspec.structs.replace(STATES[0], overrides=(limit,))
    status = Status(backend="memory://", revision="ab", routes=(slow, OVERRIDDEN, *STATES[1:]), workers={})
    text = Metrics().render(revision="ab", counters=Counters(), status=status)
    found: dict = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})["/".join(sample.labels.values())] = sample.value
    assert found["abe_router_ready"] == {
        "orders.created/billing": 5,
        "orders.late/billing": 30,
        "orders.paid/billing": 1,
        "orders.paid/paused": 50,
        "stock.#/audit": 7,
    }
    assert found["abe_router_orphans"] == {"": 1}
    paused = [route for route, value in found["abe_router_paused"].items() if value]
    assert paused == ["orders.late/billing", "orders.paid/paused"]
    limited = [route for route, value in found["abe_router_limited"].items() if value]
    assert limited == ["orders.created/billing"]
    assert found["abe_router_loop_stalls_total"] == {"": 2}
    assert found["abe_router_deliveries_total"]["orders.created/billing/handled/"] == 3
