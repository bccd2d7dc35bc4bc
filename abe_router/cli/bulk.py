"""Publishing a stream of lines: in order, in batches, with a word on every line that was refused."""

from __future__ import annotations

import asyncio
import json as jsonlib
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import BinaryIO

import click

from abe_router.backend import Backend
from abe_router.cli.access import reach
from abe_router.cli.failure import FINDINGS, OK, UNAVAILABLE, Failure
from abe_router.cli.payload import Line, read_lines
from abe_router.cli.screen import say, show_json
from abe_router.errors import BackendUnavailable, PayloadInvalid, PayloadMalformed, PublishError
from abe_router.messages.message import Message
from abe_router.routing.table import RouteTable
from abe_router.runtime.publish import append, prepare, window
from abe_router.text import format_duration, printable

#: Lines appended in one go: large enough that the round trip is small beside the work.
BATCH = 500


@dataclass(slots=True)
class Tally:
    """How many lines ended how.

    The `duplicates` were published before, not long ago; of the `unknown` the backend gave no word.
    """

    published: int = 0
    duplicates: int = 0
    rejected: int = 0
    unknown: int = 0


def publish_lines(
    table: RouteTable,
    name: str,
    key: str | None,
    *,
    headers: Mapping[str, str],
    allow_unrouted: bool,
    json: bool,
) -> int:
    """Publish each line of the file `name` (`-` is stdin) and return the exit code.

    Batches follow one another, never side by side, so that messages are kept in the order of the lines.
    Raise Failure when the backend breaks off.
    """
    tally = Tally()

    def message(line: Line) -> tuple[Message, float] | None:
        found = None
        try:
            found = line.envelope(key, headers)
            body = bytes(found.payload)
            made = prepare(
                table, found.key, body, headers=found.headers, id=found.id, allow_unrouted=allow_unrouted
            )
            return made, window(table, found.key, found.id)
        except (PublishError, PayloadMalformed) as error:
            tally.rejected += 1
            _report(name, line.number, found.key if found else key, error, json=json)
            return None

    # Each batch is one run of the loop: between them, reading stdin may block and Ctrl-C just ends it.
    with _opened(name) as stream, asyncio.Runner() as runner, _bar(stream) as advance:
        stack = AsyncExitStack()
        backend = runner.run(stack.enter_async_context(reach(table)))
        try:
            for lines in read_lines(stream, BATCH):
                messages = [found for line in lines if (found := message(line))]
                if messages:
                    tally.unknown = len(messages)
                    place = f"{name}:{lines[0].number}-{lines[-1].number}"
                    duplicates = runner.run(_append(backend, messages, place))
                    tally.unknown = 0
                    tally.duplicates += len(duplicates)
                    tally.published += len(messages) - len(duplicates)
                advance(sum(len(line.text or b"") + 1 for line in lines))
        finally:
            runner.run(stack.aclose())
            _sum_up(tally, json=json)
    return FINDINGS if tally.rejected else OK


async def _append(
    backend: Backend, messages: Sequence[tuple[Message, float]], place: str
) -> Sequence[Message]:
    """Append messages, each with its window; return those that were published before."""
    try:
        return await append(backend, messages)
    except BackendUnavailable as error:
        hint = "lines before them were published, lines after them were not"
        if shortest := min(seconds for _, seconds in messages):
            hint = f"publish from there on again: within {format_duration(shortest)} none of these is doubled"
        these = f"these {len(messages)} were" if len(messages) > 1 else "this one was"
        raise Failure(
            f"{place}: whether {these} published is unknown: {error}",
            hint=hint,
            code=UNAVAILABLE,
        ) from error


def _report(name: str, number: int, key: str | None, error: Exception, *, json: bool) -> None:
    violations = error.violations if isinstance(error, PayloadInvalid) else ()
    if json:
        fault = {"file": name, "line": number, "key": key, "reason": str(error)}
        say(jsonlib.dumps({**fault, "violations": [asdict(violation) for violation in violations]}))
    else:
        say(f"{name}:{number}: {printable(str(error))}")


def _sum_up(tally: Tally, *, json: bool) -> None:
    if json:
        show_json(asdict(tally))
    else:
        unknown = f", unknown {tally.unknown:,}" if tally.unknown else ""
        duplicates = f", duplicates {tally.duplicates:,}" if tally.duplicates else ""
        say(f"published {tally.published:,}{duplicates}, rejected {tally.rejected:,}{unknown}")


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = open(name, "rb", buffering=0)  # noqa: PTH123, SIM115  closed below
    except OSError as error:
        raise click.UsageError(f"cannot read `{name}`: {error.strerror}") from error
    with stream:
        yield stream


@contextmanager
def _bar(stream: BinaryIO) -> Iterator[Callable[[int], None]]:
    """Yield what advances a progress bar by so many bytes; there is one only on a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    status = os.fstat(stream.fileno())
    total = status.st_size if stat.S_ISREG(status.st_mode) else None
    columns = (TextColumn("publishing"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=total)
        yield lambda size: progress.advance(bar, size)
