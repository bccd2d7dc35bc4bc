"""Many routes: what it costs to have them idle, and what an edit of one does to the others."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from bench.contender import REDIS, Contender
from bench.contenders.abe import routes_file
from bench.server import Server
from bench.stage import staged
from bench.tally import Stamp

#: How many routes are idle.
ROUTES = 1_000
#: How many of them have traffic while one is changed, that one included, and how much together, a second.
BUSY, RATE = 11, 1_100
#: How long there is traffic, and when the file is saved meanwhile, in seconds.
_TRAFFIC, _SAVE_AT = 5.0, 2.0


@dataclass(frozen=True, slots=True)
class Idle:
    """One process with 1,000 idle routes: processor time as a part of a core, connections, bytes at the peak.

    `ready` is the time in seconds from its start until each route had handled a message.
    """

    cpu: float
    connections: int
    memory: int
    ready: float


@dataclass(frozen=True, slots=True)
class Reload:
    """An edit of one route among 1,000, in seconds.

    `live` is from the save to the first message in the changed route's new handler. `gap` is the longest
    time during which another route with traffic handled nothing, from the save on, and `gap_before` the
    longest in as much time before it.
    """

    live: float
    gap: float
    gap_before: float


def idle(contender: Contender, server: Server, seconds: float) -> Idle:
    """Have 1,000 routes handle one message each, and watch them do nothing for so many seconds."""
    with staged(contender, server) as stage, stage.workers(stage.spec(routes=ROUTES)) as (process,):
        ready = time.monotonic() - process.began
        time.sleep(1.0)
        cpu, began = process.cpu(), time.monotonic()
        time.sleep(seconds)
        cpu = (process.cpu() - cpu) / (time.monotonic() - began)
        return Idle(cpu, server.connections(), process.peak_memory(), ready)


def reload(server: Server) -> Reload:
    """Change the handler of one of 1,000 routes while it and ten others have traffic."""
    with staged(REDIS, server) as stage:
        spec = stage.spec(routes=ROUTES, handling="stamp")
        with stage.workers(spec) as processes:
            traffic = stage.spec(routes=BUSY, rate=RATE, seconds=_TRAFFIC)
            with stage.start("pace", traffic) as pacing:
                stage.wait(lambda: stage.tallies.total() > ROUTES, [*processes, pacing])
                time.sleep(_SAVE_AT)
                routes_file(spec, {spec.keys[0]: "bench.handler:stamp_anew"})
                saved = time.monotonic()
                pacing.wait()
            stage.wait(lambda: stage.tallies.total() >= ROUTES + int(RATE * _TRAFFIC), processes)
            return _reload(list(stage.tallies.stamps()), saved)


def _reload(stamps: list[Stamp], saved: float) -> Reload:
    live = min(stamp.handled for stamp in stamps if stamp.anew) - saved
    others = [[s.handled for s in stamps if s.key == key] for key in range(1, BUSY)]
    return Reload(
        live=live,
        gap=max(_longest_gap(t for t in times if t > saved) for times in others),
        gap_before=max(_longest_gap(t for t in times if t <= saved) for times in others),
    )


def _longest_gap(times: Iterable[float]) -> float:
    return max(after - before for before, after in pairwise(sorted(times)))
