"""Measures the time that commands take."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.contender import REDIS
from bench.contenders.abe import routes_file
from bench.process import Process
from bench.server import Server
from bench.testbed import Testbed, testbed_for

#: Numbers of routes in the served files.
ROUTES = (100, 1_000)


@dataclass(frozen=True, slots=True)
class Startup:
    """Times in seconds: an empty program, `--help`, one `publish`, and a `serve` of each number of routes.

    `publish` reads a file of 100 routes. `serve` ends when each route has handled one waiting message.
    """

    python: float
    help: float
    publish: float
    serve: dict[int, float]


def startup(server: Server) -> Startup:
    """Run each command once, after a run that compiles its modules."""
    with testbed_for(REDIS, server) as testbed:
        spec = testbed.spec(routes=ROUTES[0])
        path, payload = str(routes_file(spec)), json.dumps(spec.payloads.values[0])
        python = _run(testbed, ["-c", "pass"])
        help_, publish = (
            min(_run(testbed, ["-m", "abe_router", *arguments]) for _ in range(2))
            for arguments in (["--help"], ["publish", "-c", path, spec.keys[0], payload])
        )
    serve = {}
    for number in ROUTES:
        with (
            testbed_for(REDIS, server) as testbed,
            testbed.workers(testbed.spec(routes=number)) as (process,),
        ):
            serve[number] = time.monotonic() - process.began
    return Startup(python, help_, publish, serve)


def _run(testbed: Testbed, arguments: Sequence[str]) -> float:
    log = testbed.folder / "output.log"
    # An empty value counts as none, so that the modules are compiled even where the shell forbids it.
    environment = {**testbed.spec().environment(), "PYTHONDONTWRITEBYTECODE": ""}
    with Process([sys.executable, *arguments], environment, log) as process:
        process.wait()
        return time.monotonic() - process.began
