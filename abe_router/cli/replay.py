"""`abe-router dead replay` and `dead replays`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import click

from abe_router.backend import Backend
from abe_router.cli.dead_options import (
    Route,
    all_option,
    filter_options,
    require_selection,
    run_on_backend,
    why_option,
)
from abe_router.cli.dead_table import print_groups
from abe_router.cli.errors import FINDINGS, OK
from abe_router.cli.examples import as_command
from abe_router.cli.options import backend_options, json_option, option, route_argument
from abe_router.cli.output import print_json, print_message, print_table
from abe_router.operations.audit import local_author
from abe_router.operations.dead_groups import Selection, select
from abe_router.operations.dead_letters import DeadLetterFilter
from abe_router.operations.replay import (
    BEAT,
    Replay,
    ReplayRun,
    continue_replay,
    start_replay,
    stop_replay,
)
from abe_router.operations.replay import (
    replays as read_replays,
)
from abe_router.routing.table import RouteTable
from abe_router.text import counted, format_age, format_rate, format_time, parse_rate

#: Seconds between two lines of progress.
PROGRESS = 2.0


def _rate(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else parse_rate(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}; write 10/s, 90/m or 100/h", ctx, param) from None


@as_command(
    "replay",
    """
    abe-router dead replay orders.created/billing 17 18
    abe-router dead replay orders.created/billing --group v1-3f2a9c1b04 --dry-run
    abe-router dead replay orders.created/billing --group v1-3f2a9c1b04 --first 5 --wait
    abe-router dead replay orders.created/billing --all --rate 10/s --stop-after 3
    abe-router dead replay --continue 4
    """,
)
@route_argument(required=False)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@all_option
@filter_options
@option("--first", metavar="N", type=click.IntRange(min=1), help="Replay the N oldest of them alone.")
@option(
    "--rate", metavar="RATE", callback=_rate, help="Replay at this rate, such as 10/s, over all processes."
)
@option("--stop-after", metavar="K", type=click.IntRange(min=1), help="Stop when K died again; needs --rate.")
@option("--wait", is_flag=True, help="Wait until the messages have ended, and say how many died again.")
@option("--dry-run", is_flag=True, help="Show what would be replayed, and change nothing.")
@option("--continue", "continued", metavar="NUMBER", type=int, help="Continue a replay that did not end.")
@option("--stop", "stopped", metavar="NUMBER", type=int, help="Stop a replay that runs elsewhere.")
@why_option
@backend_options
@json_option
def command(
    route: Route | None,
    ids: Sequence[str],
    every: bool,
    where: DeadLetterFilter | None,
    first: int | None,
    rate: float | None,
    stop_after: int | None,
    wait: bool,
    dry_run: bool,
    continued: int | None,
    stopped: int | None,
    why: str,
    routes: Path,
    backend: str | None,
    prefix: str | None,
    json: bool,
) -> int:
    """Send dead letters back to their own route, and to no other.

    The dead letters are chosen at the start; those that come later are not replayed. Each is moved exactly
    once, and its attempts count from 1 again. Progress is kept in the backend: after Ctrl-C or a crash,
    --continue goes on where the replay ended. The exit code is 1 if some were not found or died again.
    """
    if continued is not None or stopped is not None:
        if route is not None or every or where or (continued is not None and stopped is not None):
            raise click.UsageError("--continue and --stop take the number of a replay and nothing else")
    elif route is None:
        raise click.UsageError("name the route, as KEY/GROUP")
    else:
        require_selection(ids, every, where)
    if stop_after is not None and rate is None:
        raise click.UsageError("--stop-after needs --rate, so that the replay can stop in time")

    async def act(found: Backend, _: RouteTable) -> Replay | Selection:
        author = local_author()
        if stopped is not None:
            return await stop_replay(found, stopped, author, why=why)
        if continued is not None:
            return await _follow(await continue_replay(found, continued, author))
        assert route is not None
        selection = await select(found, route, ids=ids, where=where, first=first)
        if dry_run:
            return selection
        run = await start_replay(
            found, selection, author, why=why, rate=rate, stop_after=stop_after, wait=wait
        )
        return await _follow(run)

    result: Replay | Selection = run_on_backend(route, routes, backend, prefix, act)
    if isinstance(result, Selection):
        return _show_selection(result, json=json)
    if json:
        print_json(result)
    elif stopped is not None:
        print_message(f"replay {result.number} stopped at {result.position:,} of {result.total:,}")
    else:
        print_message(_outcome(result))
    is_clean = result.state == "done" and not (result.missing or result.died)
    return OK if is_clean or stopped is not None else FINDINGS


@as_command(
    "replays",
    """
    abe-router dead replays
    abe-router dead replays --json
    """,
)
@backend_options
@json_option
def replays(routes: Path, backend: str | None, prefix: str | None, json: bool) -> int:
    """Show the replays of the last 30 days, the newest first.

    A replay that is running and did not change for a while may have been killed; --continue goes on with it.
    """

    async def read(found: Backend, _: RouteTable) -> Sequence[Replay]:
        return await read_replays(found)

    result: Sequence[Replay] = run_on_backend(None, routes, backend, prefix, read)
    if json:
        print_json(result)
    elif result:
        headings = ("replay", "route", "state", "moved", "died again", "rate", "author", "started", "why")
        print_table(headings, [_row(replay) for replay in result], right={"replay", "moved", "died again"})
    else:
        print_message("no replays")
    return OK


async def _follow(run: ReplayRun) -> Replay:
    """Run a replay and report its progress, which a terminal alone shows."""
    number = run.replay.number
    printed = time.monotonic()
    try:
        async for replay in run.run():
            if time.monotonic() - printed > PROGRESS:
                printed = time.monotonic()
                print_message(f"replay {number}: {_progress(replay)}")
    except asyncio.CancelledError:
        print_message(
            f"replay {number}: {_progress(run.replay)}; continue with `dead replay --continue {number}`"
        )
        raise
    return run.replay


def _progress(replay: Replay) -> str:
    waiting = f", {counted(replay.waiting, 'message')} not ended" if replay.waiting else ""
    died = f", {replay.died:,} died again" if replay.died else ""
    return f"{replay.position:,} of {replay.total:,}{waiting}{died}"


def _outcome(replay: Replay) -> str:
    """Return what came of a replay, in one line."""
    facts = [f"replayed {replay.replayed:,}"]
    if replay.missing:
        facts.append(f"{replay.missing:,} not found")
    if replay.died:
        same, other = replay.died_same, replay.died_other
        parts = [f"{same:,} by the same fault" * bool(same), f"{other:,} by another" * bool(other)]
        facts.append(f"{replay.died:,} died again ({', '.join(filter(None, parts))})")
    if replay.wait and not replay.died:
        facts.append("none died again")
    elif replay.wait and replay.replayed > replay.died:
        facts.append(f"{replay.replayed - replay.died:,} did not")
    text = ", ".join(facts)
    if replay.state == "stopped":
        left = replay.total - replay.position
        text += f"; stopped with {left:,} left: continue with `dead replay --continue {replay.number}`"
    return text


def _row(replay: Replay) -> tuple[str, ...]:
    age = time.time() - replay.updated_at
    is_quiet = replay.state == "running" and age > 2 * BEAT
    return (
        str(replay.number),
        replay.route,
        f"running, silent for {format_age(age)}" if is_quiet else replay.state,
        f"{replay.position:,}/{replay.total:,}",
        f"{replay.died:,}" if replay.wait or replay.stop_after is not None else "",
        format_rate(replay.rate) if replay.rate else "",
        replay.author,
        format_time(replay.started_at),
        replay.why,
    )


def _show_selection(selection: Selection, *, json: bool) -> int:
    """Show a dry run; the exit code says whether everything was found."""
    if json:
        print_json(selection)
    else:
        print_groups(selection.groups)
        missing = f", {selection.missing:,} not found" if selection.missing else ""
        print_message(f"would replay {len(selection.ids):,}{missing}")
    return FINDINGS if selection.missing else OK
