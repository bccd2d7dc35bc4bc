"""The pages of a replay and of a purge: the dry run, and the form that acts on exactly what it showed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.errors import BackendError
from abe_router.http.access import Caller, Role, require
from abe_router.http.dashboard.dead_view import (
    DeadView,
    GroupRow,
    LetterQuery,
    notice_of,
    path_of,
    where_of,
)
from abe_router.http.dashboard.page import Notice, PageRoute, Pages, read_form, read_number
from abe_router.http.dead_letters import path_route
from abe_router.http.endpoint import LARGEST, whole
from abe_router.http.problem import hint_of
from abe_router.http.replays import run_replay
from abe_router.http.site import Site
from abe_router.operations.dead_groups import Selection
from abe_router.operations.dead_index import RouteIndex
from abe_router.operations.dead_letters import purge
from abe_router.operations.dead_try import Trial, TryResult
from abe_router.operations.errors import OperationError
from abe_router.operations.replay import ReplayRun, start_replay
from abe_router.operations.subscriptions import require_subscription
from abe_router.text import counted, parse_rate

#: Dead letters that a dry run tries on the present file: at most so many, of one call, and for so long.
TRIED, TRIED_AT_ONCE, TRYING = 500, 50, 1.0
#: Groups that a dry run lists.
MOST_GROUPS = 50
#: A replay of so many messages waits for their ends, unless the form says otherwise.
WAITS_FOR = 1_000
#: What the form proposes.
DEFAULTS = {"rate": "10/s", "stop_after": "3", "why": "", "force": ""}


@dataclass(frozen=True)
class ReplayForm:
    """How a replay is to run, as `start_replay` takes it."""

    rate: float | None
    stop_after: int | None
    wait: bool
    why: str

    @classmethod
    def of(cls, form: Mapping[str, str]) -> ReplayForm:
        """Return what a form says; raise ValueError if that is malformed."""
        rate, stop_after = form.get("rate", "").strip(), form.get("stop_after", "").strip()
        if stop_after and whole(stop_after) is None:
            raise ValueError(f"the number of failures is between 1 and {LARGEST:,}, or empty")
        if stop_after and not rate:
            raise ValueError("a replay that stops after failures needs a rate, so that it can stop in time")
        return cls(
            parse_rate(rate) if rate else None,
            whole(stop_after),
            form.get("wait") == "on",
            form.get("why", "").strip(),
        )


@dataclass(frozen=True)
class Tried:
    """What the present file makes of the first `count` dead letters of a selection; no handler runs."""

    count: int
    result: TryResult


def routes(site: Site, pages: Pages, view: DeadView) -> list[Route]:
    """Return the dry runs, and the targets of their forms."""

    def page(act: str) -> list[Route]:
        async def ask(request: Request) -> Response:
            return await show(request, act)

        async def answer(request: Request) -> Response:
            route = path_route(request)
            caller = require(request, Role.OPERATOR, route[0])
            form = await read_form(request)
            selection = view.kept(form.get("selection", ""), route)
            if selection is None or not selection.ids:
                wrong = "The dry run of this form is no longer kept. Look at the selection again."
                return await show(request, act, wrong=wrong, form=form)
            await require_subscription(site.source.backend, route, site.source.table.by_name)
            try:
                return await act_on(request, act, caller, selection, form)
            except (ValueError, OperationError) as error:
                hint = hint_of(error)
                wrong = f"{error}{f': {hint}' if hint else ''}"
                return await show(request, act, wrong=wrong, form=form, shown=selection)

        path = f"/dead/{{key}}/{{group}}/{act}"
        return [
            PageRoute(path, ask, Role.OPERATOR),
            PageRoute(path, answer, Role.OPERATOR, method="POST"),
        ]

    async def act_on(
        request: Request, act: str, caller: Caller, selection: Selection, form: Mapping[str, str]
    ) -> Response:
        """Replay or purge a selection, and go to the page that shows what comes of it."""
        backend, author = site.source.backend, caller.author(request)
        route = path_route(request)
        if act == "purge":
            view.use(form["selection"])
            force, why = form.get("force") == "on", form.get("why", "")
            moved = await purge(backend, route, selection.ids, author=author, why=why, force=force)
            view.acted(route)
            missing = f"; {moved.missing:,} were gone" if moved.missing else ""
            notice = Notice(f"Purged {counted(moved.done, 'dead letter')}{missing}.")
            return pages.redirect(
                request, path_of(route), notice, **LetterQuery.of(request.query_params).params
            )
        how = ReplayForm.of(form)
        view.use(form["selection"])
        run = await start_replay(
            backend,
            selection,
            author,
            why=how.why,
            rate=how.rate,
            stop_after=how.stop_after,
            wait=how.wait and backend.features.peek,
        )
        site.run(replay_and_look(view, run))
        view.acted(route)
        number = run.replay.number
        text = f"Replay {number} of {counted(run.replay.total, 'dead letter')} has started."
        return pages.redirect(request, f"/replays/{number}", Notice(text))

    async def show(
        request: Request,
        act: str,
        *,
        wrong: str = "",
        form: Mapping[str, str] | None = None,
        shown: Selection | None = None,
    ) -> Response:
        """Return the dry run of the selection in the URL, or of one that was shown, with its form."""
        route, params = path_route(request), request.query_params
        caller = require(request, Role.OPERATOR, route[0])
        state = await view.index.refresh()
        part, query = view.index.route(route), LetterQuery.of(params)
        where, malformed = where_of(query)
        ids, first = params.getlist("id"), read_number(request, "first", 0, most=LARGEST)
        positions: Sequence[int] = ()
        if shown is not None:
            positions = part.positions_of(set(shown.ids))
        elif ids:
            positions = part.positions_of(set(ids))
        elif where is not None:
            positions = part.positions(where)
            if query.payload:
                require(request, Role.READER, route[0])
                positions, _ = await view.search(part, positions, query.payload)
        if shown is None and first:
            positions = positions[:first]
        selection = shown or part.selection(
            positions, missing=max(0, len(set(ids)) - len(positions)) if ids else 0
        )
        titles = {row.group.group: row for row in view.rows(part, caller)}
        counts = part.count(positions)
        trial, note = None, notice_of(state)
        if act == "replay" and caller.allows(Role.READER, route[0]):
            try:
                trial = await _tried(site, part, positions)
            except BackendError as error:
                note = note or f"The backend does not answer: {error}"
        waits = "on" if form is None and len(positions) <= WAITS_FOR else ""
        return await pages.render(
            request,
            "dead_act.html",
            title=f"{act.capitalize()} dead letters of {part.name}",
            status=409 if wrong else 200,
            act=act,
            route=part.name,
            route_key=route[0],
            letters_path=path_of(route),
            form_path=path_of(route, act),
            selection=view.keep(selection) if selection.ids and state.at else "",
            count=len(selection.ids),
            missing=selection.missing,
            groups=_rows(counts, titles),
            more_groups=max(0, len(counts) - MOST_GROUPS),
            trial=trial,
            tries=caller.allows(Role.READER, route[0]),
            filter=query,
            ids=ids,
            first=first,
            form={**DEFAULTS, "wait": waits, **(form or {})},
            wrong=wrong or malformed,
            note=note,
            at=time.time(),
            paused=await _is_paused(site, part.name),
        )

    return [*page("replay"), *page("purge")]


async def replay_and_look(view: DeadView, run: ReplayRun) -> None:
    """Run a replay to its end, and read its route anew afterwards."""
    try:
        await run_replay(run)
    finally:
        view.acted(run.replay.name)


async def _tried(site: Site, part: RouteIndex, positions: Sequence[int]) -> Tried:
    """Try dead letters on the present file. No handler runs."""
    trial, count, began = Trial(part.name, site.source.table), 0, time.monotonic()
    while count < min(len(positions), TRIED) and time.monotonic() - began < TRYING:
        some = positions[count : min(count + TRIED_AT_ONCE, TRIED)]
        found = await part.fetch(site.source.backend, some, bodies=True)
        await asyncio.to_thread(trial.add, found)
        count += len(some)
    return Tried(count, trial.result())


async def _is_paused(site: Site, route: str) -> bool:
    """Return whether a route is paused; False if the backend does not answer."""
    try:
        states = (await site.status.get()).routes
    except BackendError:
        return False
    return any(each.route == route and each.is_paused for each in states)


def _rows(counts: Mapping[str, int], titles: Mapping[str, GroupRow]) -> Sequence[tuple[int, str, str]]:
    """Return the number, the fault and the fingerprint of each group of a selection."""
    return [
        (count, titles[group].title if group in titles else group, group)
        for group, count in list(counts.items())[:MOST_GROUPS]
    ]
