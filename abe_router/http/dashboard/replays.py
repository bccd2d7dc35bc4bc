"""The pages of replays: all of the last 30 days, and one with its progress. Both are live while one runs."""

from __future__ import annotations

import time
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.errors import BackendError
from abe_router.http.access import Role, caller_of, require
from abe_router.http.dashboard.dead_acts import replay_and_look
from abe_router.http.dashboard.dead_view import DeadView, path_of
from abe_router.http.dashboard.page import Notice, PageRoute, Pages, read_form, route_path
from abe_router.http.endpoint import path_number
from abe_router.http.site import Site
from abe_router.operations.errors import OperationError, UnknownReplay
from abe_router.operations.replay import BEAT, Replay, continue_replay, stop_replay
from abe_router.text import format_rate, mask_credentials

#: Replays of one page.
MOST = 100
#: A running replay without a change for so long, in seconds, may have lost its process.
SILENT = 4 * BEAT


@dataclass(frozen=True)
class ReplayRow:
    """A replay as the pages show it.

    `state` is `silent` if it should run and nothing was heard of it. `left` is how long it takes to move the
    rest, in seconds, or None. `ended` of its messages have ended, if it waits for that.
    """

    replay: Replay
    state: str
    rate: str
    left: float | None
    silence: float
    letters: str

    @property
    def ended(self) -> int:
        """How many messages have ended."""
        return max(0, self.replay.replayed - self.replay.waiting)


def routes(site: Site, pages: Pages, view: DeadView) -> list[Route]:
    """Return the pages, and the targets of their forms."""

    async def all_replays(request: Request) -> Response:
        caller = require(request, Role.VIEWER)
        note = ""
        try:
            found = [
                each for each in await view.replays.get() if caller.allows_route(Role.VIEWER, each.route)
            ]
        except BackendError as error:
            found, note = [], f"The backend does not answer: {mask_credentials(str(error))}"
        wanted = request.query_params.get("state", "")
        rows = [_row(each) for each in found if wanted in ("", each.state)]
        return await pages.render(
            request,
            "replays.html",
            title="Replays",
            rows=rows[:MOST],
            more=max(0, len(rows) - MOST),
            count=len(rows),
            runs=any(each.state == "running" for each in found),
            wanted=wanted,
            note=note,
        )

    async def one_replay(request: Request) -> Response:
        replay = await known(request, Role.VIEWER)
        return await pages.render(
            request,
            "replay.html",
            title=f"Replay {replay.number}",
            row=_row(replay),
            replay=replay,
            route_key=replay.name[0],
            route_page=f"/routes/{route_path(replay.route)}",
        )

    async def stop(request: Request) -> Response:
        replay = await known(request, Role.OPERATOR)
        author = caller_of(request).author(request)
        why = (await read_form(request)).get("why", "")
        try:
            stopped = await stop_replay(site.source.backend, replay.number, author, why=why)
        except OperationError as error:
            return back(request, replay, Notice(f"{str(error).capitalize()}.", "warn"))
        view.acted(replay.name)
        left = stopped.total - stopped.position
        return back(request, replay, Notice(f"Replay {replay.number} is stopped; {left:,} were not moved."))

    async def carry_on(request: Request) -> Response:
        replay = await known(request, Role.OPERATOR)
        author = caller_of(request).author(request)
        try:
            run = await continue_replay(site.source.backend, replay.number, author)
        except OperationError as error:
            return back(request, replay, Notice(f"{str(error).capitalize()}.", "warn"))
        site.run(replay_and_look(view, run))
        view.acted(replay.name)
        return back(request, replay, Notice(f"Replay {replay.number} continues."))

    def back(request: Request, replay: Replay, notice: Notice) -> Response:
        return pages.redirect(request, f"/replays/{replay.number}", notice)

    async def known(request: Request, role: Role) -> Replay:
        """Return the replay in the path of a request; raise UnknownReplay, or Refusal without the role."""
        number = path_number(request)
        found = next((each for each in await view.replays.get() if each.number == number), None)
        if found is None or not caller_of(request).allows_route(Role.VIEWER, found.route):
            raise UnknownReplay(f"there is no replay {number}")
        require(request, role, found.name[0])
        return found

    return [
        PageRoute("/replays", all_replays, Role.VIEWER),
        PageRoute("/replays/{number}", one_replay, Role.VIEWER),
        PageRoute("/replays/{number}/stop", stop, Role.OPERATOR, method="POST"),
        PageRoute("/replays/{number}/continue", carry_on, Role.OPERATOR, method="POST"),
    ]


def _row(replay: Replay) -> ReplayRow:
    silence = time.time() - replay.updated_at
    is_silent = replay.state == "running" and silence > SILENT
    left = None
    if replay.state == "running" and replay.rate and replay.position < replay.total:
        left = (replay.total - replay.position) / replay.rate
    return ReplayRow(
        replay=replay,
        state="silent" if is_silent else replay.state,
        rate=format_rate(replay.rate) if replay.rate else "",
        left=left,
        silence=silence,
        letters=path_of(replay.name),
    )
