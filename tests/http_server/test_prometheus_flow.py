"""A real Prometheus scrapes a router whose handlers fail and whose worker is killed; the alerts fire."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from .test_serve_flow import serving

ALERTS = Path(__file__).parents[2] / "examples" / "operating" / "alerts.yaml"


class Prometheus:
    """The HTTP API of a Prometheus server."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def get(self, path: str, **parameters: str) -> Any:
        answer = await self._client.get(f"/api/v1/{path}", params=parameters)
        return answer.raise_for_status().json()["data"]

    async def value(self, query: str) -> float | None:
        found = (await self.get("query", query=query))["result"]
        return float(found[0]["value"][1]) if found else None

    async def firing(self) -> set[str]:
        alerts = (await self.get("alerts"))["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    async def fires(self, alerts: set[str]) -> None:
        """Wait until these alerts fire, or none if there are none."""
        async with asyncio.timeout(40):
            while not (alerts <= (firing := await self.firing()) and bool(alerts) == bool(firing)):
                await asyncio.sleep(0.2)

    async def until(self, query: str, value: float) -> None:
        async with asyncio.timeout(40):
            while await self.value(query) != value:
                await asyncio.sleep(0.2)


@asynccontextmanager
async def prometheus(folder: Path, target: str) -> AsyncIterator[Prometheus]:
    """Run Prometheus on a free port, with the shipped alerts; those fire at once."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")
    (folder / "alerts.yaml").write_text(re.sub(r"for: \d+[mh]", "for: 0s", ALERTS.read_text()))
    often = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
    scrape = {"job_name": "abe-router", "static_configs": [{"targets": [target]}]}
    config = {"global": often, "rule_files": ["alerts.yaml"], "scrape_configs": [scrape]}
    (folder / "prometheus.yml").write_text(json.dumps(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = await asyncio.create_subprocess_exec(
        *("prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"),
        *(f"--web.listen-address={address}", "--log.level=error"),
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as client:
            async with asyncio.timeout(40):
                while True:
                    try:
                        if (await client.get("/-/ready")).status_code == 200:
                            break
                    except httpx.TransportError:
                        pass
                    await asyncio.sleep(0.1)
            yield Prometheus(client)
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.timeout(180)
async def test_prometheus_reads_the_truth_and_the_alerts_fire(tmp_path: Path) -> None:
    handled = 'sum(abe_router_deliveries_total{outcome="handled"})'
    async with serving(tmp_path, "--workers", "2") as run:
        api = await run.address()
        probes = await run.address("the second listener, for probes and metrics,")
        await run.ready(api)
        async with prometheus(tmp_path, probes.removeprefix("http://")) as server:
            await server.until('abe_router_workers{state="running"}', 2)
            await server.fires(set())
            for _ in range(20):
                await run.publish(api, "orders.created", 0.0)
            await server.until(handled, 20)
            assert await server.value("sum(messaging_process_duration_seconds_count)") == 20
            assert await server.value("sum(abe_router_wait_seconds_count)") == 20

            url = f"{api}/v1/publish/orders.created"
            for _ in range(3):
                assert (await run.client.post(url, json={}, headers=run.token())).status_code == 202
            await server.until('sum(abe_router_deliveries_total{outcome="dead",reason="failed"})', 3)
            await server.until('max by (key, group) (abe_router_dead{key="orders.created"})', 3)
            await server.fires({"AbeRouterDeadLetters", "AbeRouterHandlersFail"})

            (started, *_) = run.logged(" runs")
            os.kill(int(started.partition("pid ")[2].partition(")")[0]), signal.SIGKILL)
            await server.until("abe_router_worker_restarts_total", 1)
            await server.until('abe_router_workers{state="running"}', 2)
            for _ in range(20):
                await run.publish(api, "orders.created", 0.0)
            await server.until(handled, 40)
            for name in ("abe_router_deliveries_total", "messaging_process_duration_seconds_count"):
                assert await server.value(f"sum(resets({name}[10m]))") == 0  # no counter has fallen
            (target,) = (await server.get("targets"))["activeTargets"]
            assert (target["health"], target["lastError"]) == ("up", "")
            scale = await run.get(api, "/v1/scale?routes=orders.%23", **run.token())
            assert scale.json()["backlog"] == 0
