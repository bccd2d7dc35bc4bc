"""The page of one route: charts, policies, contract, workers; and its pause, limit, resume and drop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.backend import DeadLetter, SubscriptionName
from abe_router.errors import BackendError
from abe_router.http.access import Role, require
from abe_router.http.dashboard.charts import Curve, Mark, duration_label, histogram, line_chart
from abe_router.http.dashboard.page import Notice, PageRoute, Pages, read_form, route_path, tried
from abe_router.http.dashboard.route_list import RouteRow, known_states, route_rows
from abe_router.http.dead_letters import path_route
from abe_router.http.problem import Refusal
from abe_router.http.site import SharedAnswer, Site
from abe_router.operations.errors import OperationError
from abe_router.operations.overrides import OverrideResult, limit, pause, resume
from abe_router.operations.rate_history import INTERVAL, RateHistory
from abe_router.operations.routes import RouteDescription, describe_routes
from abe_router.operations.subscriptions import drop
from abe_router.operations.worker_watch import WorkerSeen
from abe_router.routing.difference import format_batch
from abe_router.routing.table import RouteTable
from abe_router.runtime.edit_record import EditRecord, read_edits
from abe_router.text import counted, format_duration, format_rate, parse_duration, parse_rate

#: The charts: points, and intervals of the history in each; an hour.
POINTS, EVERY = 60, 4
SECONDS = POINTS * EVERY * INTERVAL
#: How long an action waits for the workers to obey, in seconds, and how long an override holds by default.
OBEY_PATIENCE, DEFAULT_FOR = 3.0, "1h"
#: How long the edits that the charts mark are shared by all readers, in seconds.
EDITS_FRESH = 15.0
#: Dead letters, and failed attempts, of which the page shows the traceback.
FAILURES = 5


@dataclass(frozen=True)
class Charts:
    """The charts of one route over the last hour."""

    throughput: Markup
    handling: Markup
    distribution: Markup
    backlog: Markup
    calls: int


def charts_of(history: RateHistory, row: RouteRow, timeout: float, marks: Sequence[Mark]) -> Charts:
    """Draw the charts of a route."""
    name, figures = row.state.route, row.figures
    until = time.time()

    def series(figure: Any) -> list[float | None]:
        return history.series(name, figure, POINTS, EVERY)

    def drawn(lines: Sequence[Curve], label: str, write: Callable[[float], str] | None = None) -> Markup:
        options: dict[str, Any] = {} if write is None else {"write": write}
        return line_chart(lines, label, until=until, seconds=SECONDS, marks=marks, **options)

    handled, failed = series("handled"), series("failed")
    peak, slowest = max((value or 0.0 for value in handled), default=0.0), series("p99")
    most = max((value for value in slowest if value), default=0.0)
    return Charts(
        throughput=drawn(
            [Curve(handled), Curve(failed, "failed")],
            f"Handled messages and failed attempts a second over the last hour, at most {peak:.3g} handled",
        ),
        handling=drawn(
            [Curve(series("p50"), "p50"), Curve(slowest, "p99")],
            f"Handling time over the last hour; p99 at most {duration_label(most)}",
            duration_label,
        ),
        distribution=histogram(
            figures.calls,
            f"Handling time of {sum(figures.calls):,} calls in the last minute",
            slow=min(timeout / 3, 10 * (figures.p50 or timeout)),
        ),
        backlog=drawn([Curve(series("backlog"))], "Messages that waited over the last hour"),
        calls=sum(figures.calls),
    )


def policies_of(route: RouteDescription) -> Mapping[str, str]:
    """Return the policies of a route in the words of the routes file."""
    retry, after = route.retry, format_duration
    jitter = ", jitter" if retry.jitter else ""
    delays = f"{after(retry.initial)} × {retry.factor:g}, at most {after(retry.max)}{jitter}"
    return {
        "concurrency": f"{route.concurrency}",
        "timeout": after(route.timeout),
        "retry": f"{counted(retry.attempts, 'attempt')}, {delays}" if retry.attempts > 1 else "none",
        "max_deliveries": f"{route.max_deliveries}",
        "max_unacked": f"{route.max_unacked}",
        "lease": after(route.lease),
        "drain": after(route.drain),
        "rate": format_rate(route.rate) if route.rate else "unlimited",
        "batch": format_batch(route.batch) if route.batch else "one by one",
        "order_by": route.order_by or "no order",
        "start": route.start,
        "dead_letter": "kept" if route.dead_letter else "dropped",
    }


@dataclass(frozen=True)
class Contract:
    """What a route asks of its messages, and what becomes of them."""

    schemas: Sequence[str]
    required: Sequence[str]
    has_sensitive: bool
    others: Sequence[str]


def contract_of(table: RouteTable, name: str) -> Contract:
    """Return the contract of a route of the table."""
    route = table.by_name[name]
    schemas = [binding.schema for binding in route.bindings]
    documents = [each.document for each in schemas if isinstance(each.document, dict)]
    required = [each for document in documents for each in document.get("required", ())]
    return Contract(
        schemas=list(dict.fromkeys(schema.name for schema in schemas)),
        required=list(dict.fromkeys(map(str, required))),
        has_sensitive=any(schema.has_sensitive for schema in schemas),
        others=[each.name for each in table.routes if each.key == route.key and each.name != name],
    )


async def recent_failures(site: Site, route: SubscriptionName) -> Sequence[DeadLetter]:
    """Return the newest dead letters of a route, newest first; none while the backend does not answer."""
    index = site.dead_letters
    await index.refresh()
    part = index.route(route)
    newest = range(max(0, len(part) - FAILURES), len(part))
    try:
        found = await part.fetch(site.source.backend, newest)
    except BackendError:
        return ()
    return found[::-1]


def routes(site: Site, pages: Pages) -> list[Route]:
    """Return the page and the targets of its forms."""

    async def known_edits() -> Sequence[EditRecord]:
        return await read_edits(site.source.backend)

    edits: SharedAnswer[Sequence[EditRecord]] = SharedAnswer(known_edits, fresh=EDITS_FRESH)

    async def marks(name: str) -> Sequence[Mark]:
        try:
            found = await edits.get()
        except Exception:  # noqa: BLE001  the charts do without
            return ()
        accepted = [edit for edit in found if edit.state == "accepted" and _touches(edit, name)]
        return [Mark(edit.offered_at, f"edit {edit.revision[:7]}") for edit in accepted[-3:]]

    async def one_route(request: Request) -> Response:
        return await shown(request, {})

    async def shown(
        request: Request, given: Mapping[str, str], *, problem: str = "", status: int = 200
    ) -> Response:
        key, group = path_route(request)
        caller, table = require(request, Role.VIEWER, key), site.source.table
        name = f"{key}/{group}"
        reading = await site.sampler.read()
        state = next((each for each in known_states(table, reading) if each.route == name), None)
        if state is None:
            raise Refusal(404, "not-found", "Not found", f"there is no route `{name}`")
        (row,) = route_rows(site, caller, [state])
        described = next((each for each in describe_routes(table) if each.route == name), None)
        edited = await marks(name)
        sees = caller.allows(Role.READER, key)
        failures = await recent_failures(site, (key, group)) if state.dead and sees else ()
        attempts = (await tried(site.failures.get()))[0] if sees else None
        workers = [] if caller.is_limited else _workers_of(site, name)

        def made() -> dict[str, Any]:
            timeout = described.timeout if described else 30.0
            return {"charts": charts_of(site.sampler.history, row, timeout, edited)}

        return await pages.render(
            request,
            "route.html",
            title=f"{key} / {group}",
            status=status,
            make=made,
            row=row,
            place=route_path(name),
            reading=reading,
            options=described,
            policies=policies_of(described) if described else {},
            contract=contract_of(table, name) if described else None,
            workers=workers,
            failures=failures,
            attempts=(attempts or {}).get(name, ())[:FAILURES],
            sees=sees,
            is_limited=caller.is_limited,
            given=given,
            problem=problem,
            default_for=DEFAULT_FOR,
            now=time.time(),
        )

    async def act(request: Request) -> Response:
        key, group = path_route(request)
        action = request.path_params["action"]
        author = require(request, Role.OPERATOR, key).author(request)
        form, name = await read_form(request), f"{key}/{group}"
        options: dict[str, Any] = {"author": author, "why": form.get("why", ""), "patience": OBEY_PATIENCE}
        table, backend = site.source.table, site.source.backend
        try:
            if action == "resume":
                result = await resume(table, backend, name, **options)
            else:
                options["seconds"] = parse_duration(form.get("for", ""))
                if form.get("action") == "limit":
                    result = await limit(table, backend, name, _rate(form.get("rate", "")), **options)
                else:
                    result = await pause(table, backend, name, **options)
        except (ValueError, OperationError) as error:
            hint = getattr(error, "hint", "")
            return await shown(request, form, problem=f"{error}{f': {hint}' if hint else ''}", status=409)
        site.status.forget()
        return pages.redirect(request, f"/routes/{route_path(name)}", _notice(name, result))

    async def drop_route(request: Request) -> Response:
        route = path_route(request)
        author = require(request, Role.ADMIN, route[0]).author(request)
        form, name = await read_form(request), "/".join(route)
        force, why = form.get("force") == "on", form.get("why", "")
        table, backend = site.source.table, site.source.backend
        await drop(table, backend, route, author=author, why=why, force=force)
        site.status.forget()
        return pages.redirect(request, "/routes", Notice(f"{name} was dropped, with all that waited for it."))

    path = "/routes/{key}/{group}"
    return [
        PageRoute(path, one_route, Role.VIEWER),
        PageRoute(f"{path}/drop", drop_route, Role.ADMIN, method="POST"),
        PageRoute(f"{path}/{{action:str}}", act, Role.OPERATOR, method="POST"),
    ]


def _rate(text: str) -> float:
    """Return a rate; a number alone is a second."""
    text = text.strip()
    return parse_rate(text if "/" in text else f"{text}/s")


def _notice(name: str, result: OverrideResult) -> Notice:
    text = "; ".join(f"{each.route} {each.text}" for each in result.routes) or f"{name} has no override"
    if any(each.paused_in_file for each in result.routes):
        text += "; the routes file pauses it too"
    if result.silent:
        return Notice(f"{text}. Not obeyed yet by {', '.join(result.silent)}.", "warn")
    obeyed = f" {counted(len(result.obeyed), 'worker')} obey." if result.obeyed else ""
    return Notice(f"{text}.{obeyed}")


def _touches(edit: EditRecord, name: str) -> bool:
    """Return whether an edit changed a route, as far as its record says."""
    changes = edit.changes.table
    return changes is None or name in {*changes.added, *changes.removed, *changes.routes}


def _workers_of(site: Site, name: str) -> Sequence[WorkerSeen]:
    watch = site.sampler.watch
    names = watch.served().routes.get(name, ())
    return [each for each in watch.workers() if each.name in names]
