"""How long our commands take from the shell to their effect."""

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
from bench.stage import Stage, staged

#: Routes of the file that is served.
ROUTES = 100


@dataclass(frozen=True, slots=True)
class Startup:
    """In seconds: an interpreter that does nothing, `--help`, one `publish`, and a `serve` of 100 routes.

    `serve` ends when each route has handled a message that was waiting for it.
    """

    python: float
    help: float
    publish: float
    serve: float


def startup(server: Server) -> Startup:
    """Run each command once."""
    with staged(REDIS, server) as stage:
        spec = stage.spec(routes=ROUTES)
        path, payload = str(routes_file(spec)), json.dumps(spec.payloads.values[0])
        python = _run(stage, ["-c", "pass"])
        help_ = _run(stage, ["-m", "abe_router", "--help"])
        publish = _run(stage, ["-m", "abe_router", "publish", "-c", path, spec.keys[0], payload])
        server.clear()
        with stage.workers(spec) as (process,):
            serve = time.monotonic() - process.began
    return Startup(python, help_, publish, serve)


def _run(stage: Stage, arguments: Sequence[str]) -> float:
    log = stage.folder / "output.log"
    with Process([sys.executable, *arguments], stage.spec().environment(), log) as process:
        process.wait()
        return time.monotonic() - process.began
