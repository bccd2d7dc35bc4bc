"""The condition of a route: the one thing about it that an operator should know first."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from abe_router.backend import Features
from abe_router.operations.rate_history import RouteFigures
from abe_router.operations.subscriptions import SubscriptionState
from abe_router.operations.worker_watch import WorkerSeen
from abe_router.runtime.heartbeat import ServedRoutes
from abe_router.runtime.override import Override
from abe_router.text import counted, format_age, format_rate, format_until

#: A route that is not paused falls behind if its oldest message waits longer than this, in seconds.
BEHIND_AFTER = 60.0

ConditionKind = Literal["failing", "stale", "behind", "limited", "paused", "running"]
#: The conditions, the worst first.
WORST_FIRST: Sequence[ConditionKind] = ("failing", "stale", "behind", "limited", "paused", "running")


class Condition(msgspec.Struct, frozen=True):
    """A condition: `text` is short; `detail` has the author, the reason or the duration, or is empty."""

    kind: ConditionKind
    text: str
    detail: str = ""


RUNNING = Condition("running", "running")


class RouteWorkers(msgspec.Struct, frozen=True):
    """The workers of one route, as far as they are known: how many run it, and what is wrong with others."""

    running: int = 0
    trouble: str = ""


def route_workers(workers: Iterable[WorkerSeen]) -> dict[str, RouteWorkers]:
    """Return the workers of each route."""
    running: dict[str, int] = {}
    trouble: dict[str, str] = {}
    seen = {worker.name: worker for worker in workers}
    served = ServedRoutes.of({name: worker.report for name, worker in seen.items()})
    for route, runs in served.routes.items():
        for worker, report in zip(map(seen.__getitem__, runs), served.reports(route), strict=True):
            if worker.is_silent:
                trouble[route] = f"no heartbeat from {worker.label} for {format_age(worker.age)}"
            elif not report.routes[route].connected:
                trouble[route] = f"{worker.label} cannot reach the backend"
            else:
                running[route] = running.get(route, 0) + 1
    names = running.keys() | trouble.keys()
    return {name: RouteWorkers(running.get(name, 0), trouble.get(name, "")) for name in names}


def condition_of(
    state: SubscriptionState,
    figures: RouteFigures,
    workers: RouteWorkers,
    features: Features,
    *,
    now: float | None = None,
) -> Condition:
    """Return the condition of a route. `now` is in seconds since the epoch."""
    now = time.time() if now is None else now
    if state.in_file is False and not workers.running:
        return Condition("stale", "not in the file", f"{counted(state.unsettled, 'message')} wait")
    pause = _override(state, "pause")
    if pause is not None:
        return Condition("paused", f"paused until {format_until(pause.ends_at, now)}", _who(pause))
    if state.paused:
        return Condition("paused", "paused", "by the routes file")
    if figures.failing:
        lasting = f" for {format_age(figures.failing_for)}" if figures.failing_for >= 1 else ""
        return Condition("failing", "failing", f"{figures.failing:.0%} of attempts{lasting}")
    if workers.trouble:
        return Condition("stale", "stale", workers.trouble)
    if features.key_value and features.processes and not workers.running:
        return Condition("stale", "stale", "no worker runs it")
    limit = _override(state, "limit")
    if limit is not None:
        until = format_until(limit.ends_at, now)
        return Condition("limited", f"{limit.effect} until {until}", _who(limit))
    age = 0.0 if state.oldest_at is None else now - state.oldest_at
    if age > BEHIND_AFTER:
        return Condition("behind", "falling behind", _flow(figures, age))
    return RUNNING


def _flow(figures: RouteFigures, age: float) -> str:
    if figures.growth <= 0:
        return f"the oldest message waits for {format_age(age)}"
    into = figures.rate + figures.growth
    return f"{format_rate(round(into, 1) or 0.1)} in, {figures.rate:.3g}/s out"


def _who(override: Override) -> str:
    return f"by {override.author}: {override.why}"


def _override(state: SubscriptionState, action: str) -> Override | None:
    return next((each for each in state.overrides if each.action == action), None)
