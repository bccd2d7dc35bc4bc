"""An incident: a router under load, everything that reports on it, and a ledger of what is true."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import jsonschema_rs
from prometheus_client.parser import text_string_to_metric_families

from .test_serve_flow import Running

#: A folder of GitHub's webhooks: `payloads.ndjson` and `schemas/KEY.json`. Without it, events are synthetic.
CORPUS = os.environ.get("ABE_ROUTER_CORPUS", "")
HANDLERS = """\
import os

from abe_router import Message

LEDGER = os.open("ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def note(route, message, outcome):
    os.write(LEDGER, f"{route} {message.headers['serial']} {outcome}\\n".encode())

async def deploy(payload, message: Message):
    note("github.push/deploy", message, "handled")

async def triage(payload, message: Message):
    if message.headers["serial"].endswith(("0", "5")):
        note("github.issues.#/triage", message, "failed")
        raise KeyError(f"label of issue {message.headers['serial']}")
    note("github.issues.#/triage", message, "handled")

async def thank(payload, message: Message):
    note("github.star.#/thank", message, "handled")
"""
ROUTES = """\
backend: {backend}
schemas: {schemas}
http: {{listen: 127.0.0.1:0, probes: 127.0.0.1:0}}
defaults: {{retry: {{attempts: 2, initial: 10ms, jitter: false}}}}
routes:
  github.push: {{schema: github.push.json, consumers: {{deploy: "hooks:deploy"}}}}
  github.issues.#: {{schema: github.issues.json, consumers: {{triage: "hooks:triage"}}}}
  github.star.#: {{schema: github.star.json, consumers: {{thank: "hooks:thank"}}}}
"""
#: The routes, and the keys that the events of each are published under.
KEYS = {
    "github.push/deploy": "github.push",
    "github.issues.#/triage": "github.issues.opened",
    "github.star.#/thank": "github.star.created",
}
PUSH, ISSUES, STARS = KEYS


def write_files(folder: Path, backend: str) -> None:
    """Write the routes file, its schemas and its handlers."""
    schemas = folder / "schemas"
    if CORPUS:
        schemas = Path(CORPUS) / "schemas"
    else:
        schemas.mkdir()
        for name in ("push", "issues", "star"):
            schema = {"required": ["repository"], "properties": {"repository": {"required": ["id"]}}}
            (schemas / f"github.{name}.json").write_text(json.dumps(schema))
    (folder / "hooks.py").write_text(HANDLERS)
    (folder / "routes.yaml").write_text(ROUTES.format(backend=backend, schemas=schemas))


def payloads(route: str) -> Iterator[Any]:
    """Return an endless supply of valid payloads for a route."""
    key = KEYS[route]
    if not CORPUS:
        return ({"repository": {"id": number}} for number in count())
    schema = json.loads((Path(CORPUS) / "schemas" / f"{'.'.join(key.split('.')[:2])}.json").read_text())
    is_valid = jsonschema_rs.validator_for(schema).is_valid
    lines = map(json.loads, (Path(CORPUS) / "payloads.ndjson").read_text().splitlines())
    return cycle([line["payload"] for line in lines if line["key"] == key and is_valid(line["payload"])])


class Incident:
    """Publishes events to a running router, and asks it how it is in every way that there is."""

    def __init__(self, run: Running, api: str, probes: str) -> None:
        self.run, self.api, self.probes = run, api, probes
        self._payloads = {route: payloads(route) for route in KEYS}
        self._serials = count(1)
        #: The serial numbers that were accepted, by route.
        self.accepted: dict[str, set[int]] = {route: set() for route in KEYS}
        self.loads = False
        #: Counters that fell between two readings: (series, before, after).
        self.fallen: list[tuple[str, float, float]] = []
        self._counters: dict[str, float] = {}

    async def publish(self, route: str, number: int) -> None:
        """Publish `number` events to a route in one request."""
        serials = list(islice(self._serials, number))
        lines = [
            {"key": KEYS[route], "payload": next(self._payloads[route]), "headers": {"serial": str(serial)}}
            for serial in serials
        ]
        answer = await self.run.client.post(
            f"{self.api}/v1/publish",
            content="\n".join(map(json.dumps, lines)),
            headers={**self.run.token(), "Content-Type": "application/x-ndjson"},
        )
        results = [json.loads(line) for line in answer.text.splitlines()]
        assert len(results) == number, answer.text[-500:]
        assert all("id" in result for result in results), results
        self.accepted[route].update(serials)

    async def load(self, size: int) -> None:
        """Publish to all routes, again and again, until `loads` is False."""
        self.loads = True
        while self.loads:
            await asyncio.gather(*(self.publish(route, size) for route in KEYS))

    def ledger(self) -> dict[str, Counter[str]]:
        """Return how many calls of the handler of each route there were, by outcome."""
        counts = {route: Counter[str]() for route in KEYS}
        with suppress(FileNotFoundError):
            for line in (self.run.folder / "ledger").read_text().splitlines():
                route, _, outcome = line.rsplit(" ", 2)
                counts[route][outcome] += 1
        return counts

    def handled(self, route: str) -> set[int]:
        """Return the serial numbers that the handler of a route has handled."""
        lines = (self.run.folder / "ledger").read_text().splitlines()
        parts = [line.rsplit(" ", 2) for line in lines]
        return {int(serial) for name, serial, outcome in parts if name == route and outcome == "handled"}

    def expected_dead(self) -> set[int]:
        """Return the serial numbers that fail."""
        return {serial for serial in self.accepted[ISSUES] if serial % 5 == 0}

    async def metrics(self) -> dict[str, float]:
        """Return each series of the metrics, and note the counters that fell."""
        text = (await self.run.get(self.probes, "/metrics")).text
        series: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
                name = f"{sample.name}{{{labels}}}"
                series[name] = sample.value
                if family.type == "counter" or sample.name.endswith(("_bucket", "_count", "_sum")):
                    before = self._counters.get(name, 0.0)
                    if sample.value < before:
                        self.fallen.append((name, before, sample.value))
                    self._counters[name] = sample.value
        return series

    async def watch(self) -> None:
        """Read the metrics again and again, until cancelled."""
        while True:
            await self.metrics()
            await asyncio.sleep(0.2)

    async def get(self, path: str) -> Any:
        """Return what the API answers."""
        answer = await self.run.get(self.api, path, **self.run.token())
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def command(self, *arguments: str, code: int = 0) -> Any:
        """Return what a command prints as JSON."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "abe_router", *arguments, "--json"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self.run.folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        printed, said = await process.communicate()
        assert process.returncode == code, (arguments, process.returncode, printed, said)
        return json.loads(printed)

    async def finished(self) -> None:
        """Wait until everything that was accepted is handled or has failed twice, except what is paused."""
        async with asyncio.timeout(60):
            while True:
                failed, twice = self.expected_dead(), 2 * len(self.expected_dead())
                wanted = self.accepted[PUSH] | self.accepted[ISSUES]
                missing = wanted - failed - self.handled(PUSH) - self.handled(ISSUES)
                if not missing and self.ledger()[ISSUES]["failed"] >= twice:
                    return
                await asyncio.sleep(0.05)

    async def worker_pids(self) -> set[int]:
        """Return the process ids of the workers that have reported lately."""
        return {worker["pid"] for worker in (await self.get("/v1/workers")).values() if worker}

    async def kill_a_worker(self) -> int:
        """Kill one worker, and return its process id."""
        pid = min(await self.worker_pids())
        os.kill(pid, signal.SIGKILL)
        return pid
