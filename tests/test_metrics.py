"""Metrics: what is rendered is what was counted, and Prometheus' own parsers accept it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from abe_router.observe.metrics import Backlog, MetricsRenderer, Snapshot, WorkersState
from abe_router.observe.tally import HANDLING_BOUNDS, WAITING_BOUNDS, ProcessCounts, RouteCounts, RouteTally

A, B = "orders.created/billing", "orders.#/audit"


def counts(*calls: float, **now: int) -> RouteCounts:
    tally = RouteTally()
    tally.handled = len(calls)
    for seconds in calls:
        tally.record_call(seconds)
    return tally.counts(**now)


def full(**changes: object) -> Snapshot:
    snapshot = Snapshot(
        now=1000.0,
        version="1.2.3",
        revision="ab12",
        routes={A: counts(0.002, 0.3, running=2, prefetched=3, slots=10), B: counts()},
        process=ProcessCounts(stalls=2, stalled_seconds=3.5, outages=1, outage_seconds=60.25, accepted=4),
        workers=WorkersState(2, 1, restarts=3, silence=0.5),
        backend_up=True,
        node="10.0.0.7:6379",
        backlogs=(
            Backlog(A, 5, 2, 1, 7, 990.5),
            Backlog(B, 0, 0, 0, 0, 1000.2, paused=True),
        ),
        replays={"running": 1},
    )
    return msgspec.structs.replace(snapshot, **changes)


def series(text: bytes) -> dict[str, dict[tuple[str, ...], float]]:
    """Return the values by name and by the values of the labels, as Prometheus' parser reads them."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_values_arrive_under_their_names_and_labels():
    found = series(MetricsRenderer().render(full()))
    billing, audit = ("orders.created", "billing"), ("orders.#", "audit")
    assert found["abe_router_deliveries_total"][*billing, "handled", ""] == 2
    assert found["abe_router_deliveries_total"][*audit, "dead", "failed"] == 0
    assert found["messaging_process_duration_seconds_count"] == {billing: 2, audit: 0}
    assert found["messaging_process_duration_seconds_sum"][billing] == pytest.approx(0.302)
    handling = found["messaging_process_duration_seconds_bucket"]
    assert [handling[*billing, str(bound)] for bound in (0.001, 0.0025, 0.25, 0.5)] == [0, 1, 1, 2]
    assert handling[*billing, "+Inf"] == 2
    assert found["abe_router_running"] == {billing: 2, audit: 0}
    assert found["abe_router_slots"][billing] == 10
    assert found["abe_router_prefetched"][billing] == 3
    assert found["abe_router_paused"] == {billing: 0, audit: 1}
    assert found["abe_router_ready"][billing] == 5
    assert found["abe_router_dead"][billing] == 7
    assert found["abe_router_oldest_age_seconds"] == {billing: 9.5, audit: 0}  # a clock that is ahead
    assert found["abe_router_workers"] == {("wanted",): 2, ("running",): 1}
    assert found["abe_router_worker_restarts_total"] == {(): 3}
    assert found["abe_router_backend_up"] == {(): 1}
    assert found["abe_router_backend_node_info"] == {("10.0.0.7:6379",): 1}
    assert found["abe_router_backend_outage_seconds_total"] == {(): 60.25}
    assert found["abe_router_loop_stalls_total"] == {(): 2}
    assert found["abe_router_reloads_total"] == {("accepted",): 4, ("rejected",): 0}
    assert found["abe_router_replays"] == {("running",): 1}
    assert found["abe_router_table_info"] == {("ab12",): 1}
    assert [version for version, _ in found["abe_router_build_info"]] == ["1.2.3"]


def test_buckets_grow_and_the_last_is_the_count():
    routes = {A: counts(*(bound * factor for bound in HANDLING_BOUNDS for factor in (1.0, 1.5)))}
    found = series(MetricsRenderer().render(full(routes=routes)))
    buckets = list(found["messaging_process_duration_seconds_bucket"].values())
    assert buckets == sorted(buckets)
    assert buckets[-1] == 2 * len(HANDLING_BOUNDS)
    assert len(found["abe_router_wait_seconds_bucket"]) == len(WAITING_BOUNDS) + 1


def test_a_removed_route_and_a_new_reason_change_the_series():
    renderer, tally = MetricsRenderer(), RouteTally()
    renderer.render(full())
    tally.count("released")
    found = series(renderer.render(full(routes={A: tally.counts()}, backlogs=())))
    assert {key for key, *_ in found["abe_router_deliveries_total"]} == {"orders.created"}
    assert found["abe_router_deliveries_total"]["orders.created", "billing", "released", ""] == 1
    assert "abe_router_ready" not in found
    assert renderer.render(full()) == MetricsRenderer().render(full())


def test_what_is_not_known_is_left_out():
    text = MetricsRenderer().render(Snapshot(now=0.0, version="1"))
    assert (
        series(text)
        .keys()
        .isdisjoint(
            {"abe_router_workers", "abe_router_backend_up", "abe_router_ready", "abe_router_table_info"}
        )
    )
    assert text.endswith(b"\n")


def test_promtool_accepts_the_metrics_and_their_names(promtool):
    assert promtool("check", "metrics", text=MetricsRenderer().render(full()).decode()) == ""


def many_routes() -> Iterator[tuple[str, RouteCounts]]:
    busy = counts(*(0.001 * n for n in range(1000)), running=3, prefetched=500, slots=10)
    for number in range(1000):
        handling = tuple(count * number for count in busy.handling)
        yield f"orders.created.of{number}/billing", msgspec.structs.replace(busy, handling=handling)


def seconds_of(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


@pytest.mark.alone
def test_a_thousand_routes_render_within_10_ms():
    routes = dict(many_routes())
    backlogs = tuple(Backlog(name, 5, 1, 2, 3, 990.5) for name in routes)
    snapshot, renderer = full(routes=routes, backlogs=backlogs), MetricsRenderer()
    lines = renderer.render(snapshot).decode().splitlines()
    assert len(lines) > 50_000
    parts = [line.rpartition(" ") for line in lines]
    # Other programs slow both down: to write as many lines takes about as long. So each is measured beside
    # the other, and one pair that is quick enough shows that it can be done.
    pairs = []
    for _ in range(100):
        rendering = seconds_of(lambda: renderer.render(snapshot))
        writing = seconds_of(lambda: [f"{name} {value}\n" for name, _, value in parts])
        if rendering < max(0.010, 1.5 * writing):
            return
        pairs.append((rendering, writing))
    raise AssertionError(f"the quickest rendering and writing took {min(pairs)} s")
