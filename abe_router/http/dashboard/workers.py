"""The page of the workers: what each last reported, and which are silent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.errors import BackendUnavailable
from abe_router.http.access import Role, require
from abe_router.http.dashboard.page import PageRoute, Pages
from abe_router.http.dashboard.route_list import WorkersSummary
from abe_router.http.site import Site
from abe_router.observe.tally import ProcessCounts
from abe_router.operations.worker_watch import WorkerSeen
from abe_router.text import counted, format_age


@dataclass(frozen=True)
class WorkerRow:
    """A worker as the page shows it. `kind` is a condition, and `problems` says what is wrong."""

    worker: WorkerSeen
    kind: str
    level: str
    problems: Sequence[str]
    rate: float
    failed: float
    in_flight: int

    @classmethod
    def of(cls, worker: WorkerSeen, revision: str) -> WorkerRow:
        """Return the row of a worker. `revision` is that of the routes file."""
        report = worker.report
        if report is None:
            return cls(worker, "stale", "warn", ["its report is of another version"], 0.0, 0.0, 0)
        problems = [f"no word for {format_age(worker.age)}"] if worker.is_silent else []
        lost = sum(not each.connected for each in report.routes.values())
        if lost:
            problems.append(f"{counted(lost, 'route')} cannot reach the backend")
        problems += [f"rejected {each.path}:{each.line}: {each.message}" for each in report.rejected[:1]]
        if report.revision != revision and not report.rejected:
            problems.append("runs another revision than the routes file has")
        if report.outdated:
            problems.append(f"runs old code: {', '.join(report.outdated[:3])}")
        is_bad = worker.is_silent or lost
        seconds = report.interval or 1.0
        done = report.activity.values()
        return cls(
            worker,
            "stale" if is_bad else "running",
            "warn" if problems else "ok",
            problems,
            0.0 if worker.is_silent else sum(each.handled for each in done) / seconds,
            0.0 if worker.is_silent else sum(each.failed for each in done) / seconds,
            sum(each.in_flight for each in report.routes.values()),
        )


def routes(site: Site, pages: Pages) -> list[Route]:
    """Return the page."""

    async def workers(request: Request) -> Response:
        require(request, Role.VIEWER, "#")
        table, counters = site.source.table, site.source.counters
        seen = site.sampler.watch.workers()
        return await pages.render(
            request,
            "workers.html",
            title="Workers",
            rows=[WorkerRow.of(worker, table.revision) for worker in seen],
            summary=WorkersSummary.of(site),
            supervisor=site.source.workers,
            process=ProcessCounts() if counters is None else counters.process_counts(),
            has_process=counters is not None,
            has_reports=_has_reports(site),
            reading=site.sampler.reading,
            trouble=site.sampler.trouble,
            now=time.time(),
        )

    return [PageRoute("/workers", workers, Role.VIEWER)]


def _has_reports(site: Site) -> bool:
    try:
        return site.source.backend.features.key_value
    except BackendUnavailable:
        return True
