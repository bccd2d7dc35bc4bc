"""examples/operating: each alert fires with its fault, and each query names metrics that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml
from prometheus_client.parser import text_string_to_metric_families

from abe_router.observe.metrics import Backlog, MetricsRenderer, Snapshot, WorkersState
from abe_router.observe.tally import HANDLING_BOUNDS, ProcessCounts, RouteCounts
from abe_router.operations.scale import Scale

FOLDER = Path(__file__).parents[1] / "examples" / "operating"
ALERTS, BOARD = FOLDER / "alerts.yaml", FOLDER / "grafana.json"
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
ROUTE = "orders.created/billing"
#: The backend reports the same to every router.
CLUSTER_WIDE = ("ready", "in_flight", "delayed", "dead", "oldest_age_seconds", "paused", "limited", "orphans")

At = Callable[[int], Snapshot | None]


def outcomes(handled: int, **others: int) -> dict[str, dict[str, int]]:
    reasons = {"retried": "failed", "dead": "failed", "lease_lost": "settlement"}
    return {
        "handled": {"": handled},
        **{name: {reason: others.get(name, 0)} for name, reason in reasons.items()},
    }


def healthy(step: int, *, handled: int = 60, **others: int) -> Snapshot:
    counts = {name: step * count for name, count in others.items()}
    return Snapshot(
        now=1000.0,
        version="1",
        revision="ab",
        routes={ROUTE: RouteCounts(outcomes=outcomes(step * handled, **counts), running=1, slots=10)},
        process=ProcessCounts(accepted=1),
        workers=WorkersState(2, 2),
        backend_up=True,
        backlogs=(Backlog(ROUTE, 5, 1, 0, 0, 998.0),),
        orphans=0,
    )


def with_process(**counts: float) -> At:
    def at(step: int) -> Snapshot:
        now = {name: count * step for name, count in counts.items()}
        return msgspec.structs.replace(healthy(step), process=ProcessCounts(**now))

    return at


def but(**changes: Any) -> At:
    return lambda step: msgspec.structs.replace(healthy(step), **changes)


#: The fault of each alert, as what a router reports at each step.
FAULTS: dict[str, At] = {
    "AbeRouterAbsent": lambda step: None,
    "AbeRouterBackendDown": but(backend_up=False),
    "AbeRouterWorkersMissing": but(workers=WorkersState(2, 1)),
    "AbeRouterWorkersRestart": lambda step: msgspec.structs.replace(
        healthy(step), workers=WorkersState(2, 2, restarts=step)
    ),
    "AbeRouterWorkerBlocked": but(workers=WorkersState(2, 2, silence=45.0)),
    "AbeRouterEventLoopStalls": with_process(stalls=1, stalled_seconds=10.0),
    "AbeRouterFallsBehind": but(backlogs=(Backlog(ROUTE, 5, 1, 0, 0, 600.0),)),
    "AbeRouterDeadLetters": lambda step: healthy(step, dead=1),
    "AbeRouterHandlersFail": lambda step: healthy(step, handled=6, retried=3),
    "AbeRouterLeasesLost": lambda step: healthy(step, lease_lost=2),
    "AbeRouterEditRejected": with_process(rejected=1),
    "AbeRouterTablesDiffer": but(revision="cd"),
    "AbeRouterPaused": but(backlogs=(Backlog(ROUTE, 5, 0, 0, 0, 600.0, paused=True),)),
    "AbeRouterOrphans": but(orphans=1),
}


#: In the other tests a healthy router runs beside the one with the fault.
ALONE = ("AbeRouterAbsent", "AbeRouterHandlersFail")
#: The metrics that the rules name.
NAMED = set(re.findall(r"\b(?:abe_router|messaging)_\w+", str(RULES)))
#: The minutes between two reports, and how many are made; a pause lasts for long before it is an alert.
STEPS = {"AbeRouterOrphans": (1, 80), "AbeRouterPaused": (4, 200)}


def reported(instance: str, at: At, steps: int) -> Iterator[tuple[str, str]]:
    """Yield the series of a router and their values, step by step, as promtool writes them."""
    values: dict[str, list[str]] = {}
    renderer = MetricsRenderer()
    for step in range(steps):
        if (snapshot := at(step)) is not None:
            for line in renderer.render(snapshot).decode().splitlines():
                name, _, value = line.rpartition(" ")
                if name.partition("{")[0] in NAMED:
                    values.setdefault(name, []).append(value)
    for name, found in values.items():
        labels = f'{{instance="{instance}",job="abe-router",'
        yield name.replace("{", labels, 1) if "{" in name else f"{name}{labels}}}", " ".join(found)


def alerts_test(name: str, instances: dict[str, At]) -> dict[str, Any]:
    """Return a test of promtool: of all alerts, the one of that name fires in the end, or none."""
    minutes, steps = STEPS.get(name, (1, 30))
    series = [item for instance, at in instances.items() for item in reported(instance, at, steps)]
    expected = [{"labels": f'{{alertname="{name}"}}', "value": 1}] if name else []
    query = 'group by (alertname) (ALERTS{alertstate="firing"})'
    return {
        "interval": f"{minutes}m",
        "input_series": [{"series": name, "values": values} for name, values in series],
        "promql_expr_test": [
            {"expr": query, "eval_time": f"{minutes * (steps - 1)}m", "exp_samples": expected}
        ],
    }


def test_every_alert_has_a_fault():
    assert [rule["alert"] for rule in RULES] == list(FAULTS)


def test_each_alert_fires_with_its_fault_and_none_without(tmp_path, promtool):
    tests = [alerts_test("", {"a": healthy, "b": healthy})]
    for name, fault in FAULTS.items():
        tests.append(alerts_test(name, {"a": fault} if name in ALONE else {"a": healthy, "b": fault}))
    (tmp_path / "alerts.yaml").write_bytes(ALERTS.read_bytes())
    content = {"rule_files": ["alerts.yaml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yaml").write_text(json.dumps(content))
    promtool("test", "rules", tmp_path / "tests.yaml")


def known_metrics() -> set[str]:
    text = MetricsRenderer().render(healthy(1)).decode()
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}


def panels() -> Iterator[dict[str, Any]]:
    for panel in json.loads(BOARD.read_text())["panels"]:
        yield panel
        yield from panel.get("panels", ())


def board_queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel.get("targets", ())]


def test_alerts_and_board_name_metrics_that_exist():
    for query in [*(rule["expr"] for rule in RULES), *board_queries()]:
        named = set(re.findall(r"\b(?:abe_router|messaging)_\w+", query))
        assert named, query
        assert named <= known_metrics(), query


def test_gauges_of_the_backend_are_never_added_up_over_routers():
    gauge = re.compile(rf"abe_router_(?:{'|'.join(CLUSTER_WIDE)})\b")
    for query in [*(rule["expr"] for rule in RULES), *board_queries()]:
        for found in gauge.finditer(query):
            before = query[: found.start()]
            assert re.search(r"max(?: by \(key, group\) )?\($", before), query


def test_queries_of_the_board_are_valid(tmp_path, promtool):
    queries = [re.sub(r"\$__rate_interval|\$__range", "5m", query) for query in board_queries()]
    assert len(queries) >= 12
    rules = [{"record": f"q{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "board.yaml").write_text(json.dumps({"groups": [{"name": "board", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "board.yaml")


def test_panels_of_the_board_have_titles_units_and_their_own_places():
    board = json.loads(BOARD.read_text())
    assert len({panel["id"] for panel in panels()}) == len(list(panels()))
    taken = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["title"]
        assert panel["type"] == "row" or panel["fieldConfig"]["defaults"]["unit"]


def test_handling_time_of_the_board_uses_the_buckets():
    (query,) = [each for each in board_queries() if "quantile(0.99" in each and "process" in each]
    assert "by (le" in query
    assert len(HANDLING_BOUNDS) > 10


def test_keda_asks_for_a_number_that_the_endpoint_returns():
    _, scaled = yaml.safe_load_all((FOLDER / "kubernetes" / "keda.yaml").read_text())
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["metadata"]["valueLocation"] in Scale.__struct_fields__
    assert "/v1/scale?routes=" in trigger["metadata"]["url"]
