"""docs/metrics.md: its tables list what is rendered, counted and shipped."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from abe_router.observe.metrics import Backlog, MetricsRenderer, Snapshot, WorkersState
from abe_router.observe.tally import ProcessCounts, RouteTally
from abe_router.operations.scale import Scale

from .blocks import blocks

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "metrics.md"
TEXT = PAGE.read_text()


def rows(heading: str) -> list[list[str]]:
    """Return the rows of the table whose first heading this is, without the marks of code."""
    (table,) = re.findall(rf"^\| {heading} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    return [[cell.strip().replace("`", "") for cell in line.split("|")[1:-1]] for line in table.splitlines()]


def test_the_page_lists_all_metrics_with_their_types_and_labels():
    snapshot = Snapshot(
        now=0.0,
        version="1",
        revision="ab",
        routes={"a/b": RouteTally().counts()},
        process=ProcessCounts(),
        workers=WorkersState(1, 1),
        backend_up=True,
        node="10.0.0.7:6379",
        backlogs=(Backlog("a/b", 0, 0, 0, 0),),
        replays={"running": 1},
        orphans=0,
    )
    rendered = {}
    for family in text_string_to_metric_families(MetricsRenderer().render(snapshot).decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        rendered[name] = (family.type, labels)
    listed = {name: (kind, set(filter(None, labels.split(", ")))) for name, kind, labels, _ in rows("metric")}
    assert listed == rendered


def test_the_page_lists_the_outcomes():
    usual = {
        (outcome, reason) for outcome, reasons in RouteTally().counts().outcomes.items() for reason in reasons
    }
    listed = {(outcome, reason) for outcome, reasons, _ in rows("outcome") for reason in reasons.split(", ")}
    assert usual <= listed


def test_the_page_lists_the_alerts_and_their_severity():
    groups = yaml.safe_load((ROOT / "examples" / "operating" / "alerts.yaml").read_text())["groups"]
    rules = [[rule["alert"], rule["labels"]["severity"]] for group in groups for rule in group["rules"]]
    assert [row[:2] for row in rows("alert")] == rules


def test_the_page_lists_the_fields_of_the_scale():
    assert [name for name, _ in rows("field")] == list(Scale.__struct_fields__)


def test_files_of_the_page_exist():
    named = re.findall(r"`(examples/operating/[\w./]+)`", TEXT)
    assert len(named) >= 3
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("block", blocks(PAGE, "yaml"), ids=lambda block: block.title)
def test_the_configuration_of_prometheus_is_valid(block, tmp_path, promtool):
    (tmp_path / "alerts.yaml").write_bytes((ROOT / "examples" / "operating" / "alerts.yaml").read_bytes())
    (tmp_path / block.title).write_text(block.text)
    promtool("check", "config", tmp_path / block.title)
