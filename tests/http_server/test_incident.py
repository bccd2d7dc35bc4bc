"""What every command and endpoint says during an incident, compared with a ledger of the test's own."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from inspect import isawaitable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from abe_router.testing.redis_server import RedisServer, free_port
from tests.limits import HANG

from .incident import ISSUES, KEYS, PUSH, STARS, Incident, write_files
from .test_serve_flow import started

ALERTS = Path(__file__).parents[2] / "examples" / "operating" / "alerts.yaml"
PROMETHEUS = """\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [alerts.yaml]
scrape_configs:
  - job_name: abe-router
    static_configs: [{{targets: ["{target}"]}}]
"""


class Prometheus:
    """A Prometheus with the alert rules of the examples, which fire without delay here."""

    def __init__(self, port: int) -> None:
        self._client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=HANG)

    @classmethod
    @asynccontextmanager
    async def running(cls, folder: Path, target: str) -> AsyncIterator[Prometheus]:
        program = shutil.which("prometheus")
        assert program is not None, "prometheus is not installed: see .ci/install-prometheus"
        rules = ALERTS.read_text()
        for wait in ("1m", "5m", "15m", "1h", "12h"):
            rules = rules.replace(f"for: {wait}\n", "for: 0s\n")
        (folder / "alerts.yaml").write_text(rules)
        (folder / "prometheus.yml").write_text(PROMETHEUS.format(target=target.removeprefix("http://")))
        port = free_port()
        process = await asyncio.create_subprocess_exec(
            program,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'series'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stderr=asyncio.subprocess.DEVNULL,
        )
        prometheus = cls(port)
        try:
            yield prometheus
        finally:
            await prometheus._client.aclose()
            process.kill()
            await process.wait()

    async def has_scraped(self) -> bool:
        """Whether it has read the metrics."""
        with suppress(httpx.ConnectError, ValueError):  # it answers in plain text while it starts
            return bool(await self.query("abe_router_build_info"))
        return False

    async def query(self, expression: str) -> dict[str, float]:
        """Return the value of each series of an expression, by its labels `key` and `group`."""
        answer = (await self._client.get("/api/v1/query", params={"query": expression})).json()
        rows = ((row["metric"], float(row["value"][1])) for row in answer["data"]["result"])
        return {f"{labels.get('key')}/{labels.get('group')}": value for labels, value in rows}

    async def firing(self, name: str) -> list[dict[str, str]]:
        """Return the labels of each firing alert with a name, once there is one."""

        async def named() -> list[dict[str, str]]:
            return [alert for alert in await self.alerts() if alert["alertname"] == name]

        return await _until(named)

    async def alerts(self) -> list[dict[str, str]]:
        """Return the labels of all firing alerts."""
        answer = (await self._client.get("/api/v1/alerts")).json()
        return [alert["labels"] for alert in answer["data"]["alerts"] if alert["state"] == "firing"]


@pytest.mark.heavy(27)
@pytest.mark.timeout(240)
async def test_everything_that_reports_tells_the_truth_during_an_incident(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    with RedisServer(tmp_path / "redis") as redis:
        write_files(tmp_path, redis.url)
        async with started(tmp_path, "--workers", "2") as run:
            api = await run.address()
            probes = await run.address("the second listener, for probes and metrics,")
            await run.ready(api)
            incident = Incident(run, api, probes)
            async with Prometheus.running(tmp_path, probes) as prometheus:
                await _until(prometheus.has_scraped)
                await _until(prometheus.alerts, lambda firing: firing == [])
                watching = asyncio.create_task(incident.watch())
                try:
                    await _go_through(incident, prometheus)
                finally:
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)
            assert incident.fallen == []


async def _go_through(incident: Incident, prometheus: Prometheus) -> None:
    # One route fails on some of its messages.
    for _ in range(4):
        await asyncio.gather(*(incident.publish(route, 50) for route in KEYS))
    await incident.finished()
    await _compare(incident, prometheus)
    for alert in ("AbeRouterDeadLetters", "AbeRouterHandlersFail"):
        assert {labels["group"] for labels in await prometheus.firing(alert)} == {"triage"}
    calls = {route: counts.total() for route, counts in incident.ledger().items()}
    assert await prometheus.query("sum by (key, group) (messaging_process_duration_seconds_count)") == calls
    waits = {route: len(accepted) for route, accepted in incident.accepted.items()}
    assert await prometheus.query("sum by (key, group) (abe_router_wait_seconds_count)") == waits

    # Another one is paused while messages come: when the command returns, no worker begins one.
    loading = asyncio.create_task(incident.load(20))
    await incident.command("pause", STARS, "--for", "1h", "--why", "the mail gateway is down")
    handled, accepted = incident.ledger()[STARS]["handled"], len(incident.accepted[STARS])
    await _until(lambda: len(incident.accepted[STARS]) > accepted + 100)
    assert incident.ledger()[STARS]["handled"] == handled

    # An edit is rejected; the table before it stays in force, also for those who publish.
    path = incident.run.folder / "routes.yaml"
    path.write_text(path.read_text().replace("hooks:deploy", "hooks:deplox"))
    await _until(lambda: incident.run.logged("rejected"))

    # A worker is killed while it works.
    killed = await incident.kill_a_worker()
    await _until(lambda: incident.run.logged(f"(pid {killed}) was killed by SIGKILL"))
    await asyncio.sleep(1.0)
    incident.loads = False
    await loading
    await incident.finished()
    await _compare(incident, prometheus, paused=True, rejected=True, killed=True)
    assert {alert["group"] for alert in await prometheus.firing("AbeRouterPaused")} == {"thank"}
    assert await prometheus.firing("AbeRouterEditRejected")
    names = {alert["alertname"] for alert in await prometheus.alerts()}
    assert names.isdisjoint({"AbeRouterBackendDown", "AbeRouterAbsent", "AbeRouterTablesDiffer"})

    # The pause ends, and the edit is taken back. Until its report expires, the killed worker would be named.
    await _until(incident.worker_pids, lambda pids: killed not in pids)
    path.write_text(path.read_text().replace("hooks:deplox", "hooks:deploy"))
    await incident.command("resume", STARS)
    await _until(lambda: incident.handled(STARS) >= incident.accepted[STARS])
    await _compare(incident, prometheus, killed=True)
    for name in ("abe_router_deliveries_total", "messaging_process_duration_seconds_count"):
        fallen = await prometheus.query(f"sum by (key, group) (resets({name}[10m])) > 0")
        assert fallen == {}, name
    assert await prometheus.query("up == 1")
    actions = [act["action"] for act in await incident.command("audit")]
    assert actions == ["resume", "pause"]


async def _compare(
    incident: Incident,
    prometheus: Prometheus,
    *,
    paused: bool = False,
    rejected: bool = False,
    killed: bool = False,
) -> None:
    """Compare everything that is said with the ledger. What is cached may be a few seconds late."""
    failed, ledger = incident.expected_dead(), incident.ledger()
    waiting = len(incident.accepted[STARS] - incident.handled(STARS))
    assert bool(waiting) is paused
    expected = {PUSH: (0, 0), ISSUES: (0, len(failed)), STARS: (waiting, 0)}

    def counts(status: Any) -> dict[str, tuple[int, int]]:
        return {
            state["route"]: (state["ready"] + state["delayed"] + state["in_flight"], state["dead"])
            for state in status["routes"]
        }

    await _until(lambda: incident.get("/v1/status"), lambda status: counts(status) == expected)
    status = await incident.command("status")
    assert counts(status) == expected
    assert [state["route"] for state in status["routes"] if state["overrides"]] == [STARS] * paused

    # Workers can do nothing for a paused route, so an autoscaler does not count what waits there. What a
    # killed worker held is in flight until the route goes on.
    async def worked_on() -> tuple[int, int]:
        scale, status = await incident.get("/v1/scale?routes=github.%23"), await incident.get("/v1/status")
        return scale["backlog"], sum(state["in_flight"] for state in status["routes"])

    backlog, held = await _until(worked_on, lambda found: found[0] == found[1])
    assert killed or backlog == held == 0
    top = await incident.command("top", "--once")
    assert {
        row["route"]: (row["waiting"] + (held if row["route"] == STARS else 0), row["dead"])
        for row in top["routes"]
    } == expected
    assert top["workers"] >= 2

    groups = (await incident.command("dead", "groups"))["groups"]
    assert [(group["place"], group["count"]) for group in groups] == [
        ("KeyError in hooks:triage", len(failed))
    ]
    listed = await incident.get(f"/v1/dead-letters/groups?key={quote(ISSUES.split('/')[0])}")
    assert [group["count"] for group in listed["groups"]] == [len(failed)]

    overrides = await incident.get("/v1/overrides")
    assert [override["why"] for override in overrides] == ["the mail gateway is down"] * paused
    newest, *_ = await incident.command("history")
    assert newest["record"]["state"] == ("rejected" if rejected else "accepted")
    assert (await incident.run.get(incident.api, "/readyz")).status_code == 200

    def metric(name: str, route: str, **labels: str) -> str:
        key, _, group = route.partition("/")
        found = {"key": key, "group": group, **labels}
        return f"{name}{{{','.join(f'{name}={value}' for name, value in sorted(found.items()))}}}"

    def told(series: dict[str, float], route: str, outcome: str, reason: str = "") -> float:
        return series[metric("abe_router_deliveries_total", route, outcome=outcome, reason=reason)]

    def agrees(series: dict[str, float]) -> bool:
        # A worker that is killed takes the counts of its last second with it.
        for route in KEYS:
            handled = told(series, route, "handled")
            if handled > ledger[route]["handled"] or (handled < ledger[route]["handled"] and not killed):
                return False
        return (
            (killed or told(series, ISSUES, "dead", "failed") == len(failed))
            and series[metric("abe_router_dead", ISSUES)] == len(failed)
            and series[metric("abe_router_ready", STARS)] == waiting - held
            and series[metric("abe_router_paused", STARS)] == paused
            and series["abe_router_workers{state=running}"] == 2
            and series["abe_router_worker_restarts_total{}"] == killed
            and (series["abe_router_reloads_total{result=rejected}"] > 0) is (rejected or killed)
        )

    series = await _until(incident.metrics, agrees)
    handled = {route: told(series, route, "handled") for route in KEYS}
    query = 'sum by (key, group) (abe_router_deliveries_total{outcome="handled"})'
    await _until(lambda: prometheus.query(query), lambda scraped: scraped == handled)


async def _until(ask: Callable[[], Any], holds: Callable[[Any], Any] = bool) -> Any:
    """Ask until the answer holds, and return it."""
    answer = None
    try:
        async with asyncio.timeout(HANG):
            while True:
                answer = ask()
                if isawaitable(answer):
                    answer = await answer
                if holds(answer):
                    return answer
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"it is not so within 30 seconds: {answer}") from None
