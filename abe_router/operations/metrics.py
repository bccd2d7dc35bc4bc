"""The metrics of a router: what its workers have counted, and the state of its subscriptions."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

from abe_router.observe.metrics import Backlog, MetricsRenderer, Snapshot, WorkersState
from abe_router.observe.tally import ProcessCounts, RouteCounts
from abe_router.operations.status import Status
from abe_router.operations.subscriptions import SubscriptionState


class Counters(Protocol):
    """What counts: a supervisor for its workers, or an application."""

    def counts(self) -> Mapping[str, RouteCounts]:
        """Return what each route has done."""

    def process_counts(self) -> ProcessCounts:
        """Return what the processes have met."""


class Metrics:
    """Makes the metrics of one router, again and again."""

    def __init__(self) -> None:
        self._renderer = MetricsRenderer()
        try:
            self._version = version("abe-router")
        except PackageNotFoundError:  # it runs from a folder that is not installed
            self._version = "unknown"

    def render(
        self,
        *,
        revision: str = "",
        counters: Counters | None = None,
        workers: WorkersState | None = None,
        backend_up: bool | None = None,
        status: Status | None = None,
        replays: Mapping[str, int] | None = None,
    ) -> bytes:
        """Return the metrics as text of the type `CONTENT_TYPE`; what is None is left out.

        `status` is recent: the age of the oldest message is that of now. Subscriptions that are not in the
        file have no series; they are counted.
        """
        states = () if status is None else status.routes
        return self._renderer.render(
            Snapshot(
                now=time.time(),
                version=self._version,
                revision=revision,
                routes={} if counters is None else counters.counts(),
                process=None if counters is None else counters.process_counts(),
                workers=workers,
                backend_up=backend_up,
                node="" if status is None else status.node,
                backlogs=None if status is None else [_backlog(each) for each in states if _is_shown(each)],
                orphans=None
                if status is None
                else sum(each.seen and each.in_file is False for each in states),
                replays=replays,
            )
        )


def _is_shown(state: SubscriptionState) -> bool:
    return state.seen and state.in_file is not False


def _backlog(state: SubscriptionState) -> Backlog:
    return Backlog(
        state.route,
        state.ready or 0,
        state.in_flight or 0,
        state.delayed or 0,
        state.dead or 0,
        state.oldest_at,
        state.is_paused,
        state.is_limited,
    )
