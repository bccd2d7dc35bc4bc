"""Samples what the routes do, for the pages and the event stream: one task a server, however many watch.

It reads the reports of the workers every two seconds, which is one small request to the backend, and the
status once in each interval of the history. Where the backend has no key-value store, there are no reports,
and the consumers of this process count.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from abe_router.backend import Backend, Features
from abe_router.errors import AbeRouterError
from abe_router.operations.condition import Condition, RouteWorkers, condition_of, route_workers
from abe_router.operations.metrics import Counters
from abe_router.operations.rate_history import INTERVAL, RateHistory
from abe_router.operations.status import Status
from abe_router.operations.subscriptions import SubscriptionState
from abe_router.operations.worker_watch import WorkerWatch
from abe_router.runtime.activity import ActivityReporter
from abe_router.runtime.heartbeat import WORKERS
from abe_router.text import format_age, mask_credentials

_log = logging.getLogger("abe_router.http")

#: Interval of the samples, and how long one may take, in seconds.
EVERY, PATIENCE = 2.0, 5.0
#: How long a page waits for the status, in seconds, if there is an older one.
PAGE_PATIENCE = 2.0


class Reading(msgspec.Struct, frozen=True):
    """The newest status that is known, None if there is none, and when it was read.

    `failure` says why there is no newer one, or is empty. Times are in seconds since the epoch.
    """

    status: Status | None = None
    read_at: float = 0.0
    failure: str = ""


class Sampler:
    """Keeps the history of the rates and follows the workers. `status` returns the shared status."""

    def __init__(
        self,
        backend: Callable[[], Backend],
        counters: Callable[[], Counters | None],
        status: Callable[[], Awaitable[Status]],
    ) -> None:
        self._backend, self._counters, self._status = backend, counters, status
        self.history, self.watch = RateHistory(), WorkerWatch()
        self._reporter: ActivityReporter | None = None
        self._reading = Reading()
        #: The interval whose status was read. A server that has just started leaves the backend alone.
        self._sampled_at = int(time.time() // INTERVAL) + 1

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self.sample()
            except (AbeRouterError, TimeoutError) as error:
                _log.debug("cannot sample: %s", error)
            except Exception:  # noqa: BLE001  the next sample may succeed
                _log.exception("cannot sample what the routes do")
            await asyncio.sleep(EVERY)

    async def sample(self) -> None:
        """Read what the routes did since the last sample; raise BackendError."""
        self.history.tick()
        backend = self._backend()
        if backend.features.key_value:
            for report in self.watch.update(await backend.entries(WORKERS)):
                self.history.record(report.activity, report.interval)
        elif (counters := self._counters()) is not None:
            self._reporter = self._reporter or ActivityReporter(counters.counts)
            seconds, activity = self._reporter.report()
            self.history.record(activity, seconds)
        interval = int(time.time() // INTERVAL)
        if interval > self._sampled_at:
            self._sampled_at = interval
            await self.read()

    @property
    def reading(self) -> Reading:
        """The newest status that was read."""
        return self._reading

    @property
    def trouble(self) -> str:
        """The worker that is silent, as text; empty if all report."""
        silent = [worker for worker in self.watch.workers() if worker.is_silent]
        if not silent:
            return ""
        worst = max(silent, key=lambda worker: worker.age)
        more = f", and from {len(silent) - 1} more" if len(silent) > 1 else ""
        return f"no word from {worst.label} for {format_age(worst.age)}{more}"

    def conditions(self, states: Iterable[SubscriptionState]) -> dict[str, Condition]:
        """Return the conditions of routes, by name."""
        now, workers = time.time(), route_workers(self.watch.workers())
        features = self._backend_features()
        return {
            state.route: condition_of(
                state,
                self.history.figures(state.route),
                workers.get(state.route, RouteWorkers()),
                features,
                now=now,
            )
            for state in states
        }

    def _backend_features(self) -> Features:
        try:
            return self._backend().features
        except AbeRouterError:  # it is not open yet
            return Features(key_value=False)

    async def read(self) -> Reading:
        """Return the newest status; an older one if the backend does not answer soon."""
        try:
            async with asyncio.timeout(PAGE_PATIENCE if self._reading.status else None):
                status = await self._status()
        except TimeoutError:
            return msgspec.structs.replace(self._reading, failure="the backend does not answer")
        except AbeRouterError as error:
            return msgspec.structs.replace(self._reading, failure=mask_credentials(str(error)))
        if status is not self._reading.status:
            self._reading = Reading(status, time.time())
            self.history.record_backlogs(status.routes)
        return self._reading
