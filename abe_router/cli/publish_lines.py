"""`abe-router publish --ndjson`: publish a stream of lines, and report each rejected line."""

from __future__ import annotations

import asyncio
import json as jsonlib
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from typing import BinaryIO

import click

from abe_router.cli.access import open_to_publish
from abe_router.cli.errors import FINDINGS, OK, UNAVAILABLE, CommandError
from abe_router.cli.output import print_json, print_message
from abe_router.errors import PublishTimeout
from abe_router.operations.bulk import (
    BATCH_SIZE,
    BulkPublisher,
    BulkResult,
    Line,
    LineSplitter,
    RejectedLine,
)
from abe_router.operations.errors import OutcomeUnknown
from abe_router.routing.table import RouteTable
from abe_router.text import format_duration, printable

#: Bytes of one read; a pipe returns what it has.
_CHUNK = 1 << 20


def publish_lines(
    table: RouteTable,
    name: str,
    key: str | None,
    *,
    headers: Mapping[str, str],
    allow_unrouted: bool,
    timeout: float | None,
    json: bool,
) -> int:
    """Publish each line of the file `name` (`-` is stdin) and return the exit code.

    Raise CommandError when the backend fails in the middle of a batch.
    """
    publisher = BulkPublisher(table, key=key, headers=headers, allow_unrouted=allow_unrouted)
    # Each batch is one run of the loop. Between two of them, reading stdin may block, and Ctrl-C ends it.
    with _opened(name) as stream, asyncio.Runner() as runner, _progress_bar(stream) as advance:
        stack = AsyncExitStack()
        backend, _ = runner.run(stack.enter_async_context(open_to_publish(table, timeout)))
        try:
            for lines in read_lines(stream, BATCH_SIZE):
                batch = publisher.prepare(lines)
                for rejected in batch.rejected:
                    _report_rejected(name, rejected, json=json)
                runner.run(publisher.append(backend, batch, timeout))
                advance(sum(len(line.text or b"") + 1 for line in lines))
        except OutcomeUnknown as error:
            raise _outcome_unknown(name, error) from error
        except PublishTimeout as error:
            where = f"{name}:{batch.first}-{batch.last}"
            hint = "publish again from there: no message of these lines was published"
            raise CommandError(f"{where}: {error}", hint=hint, code=UNAVAILABLE) from error
        finally:
            runner.run(stack.aclose())
            _report_result(publisher.result, json=json)
    return FINDINGS if publisher.result.rejected else OK


def read_lines(stream: BinaryIO, limit: int) -> Iterator[list[Line]]:
    """Yield the lines of a stream as they arrive, at most `limit` at a time, without the empty ones."""
    splitter = LineSplitter()
    while chunk := os.read(stream.fileno(), _CHUNK):
        yield from _slices(splitter.feed(chunk), limit)
    yield from _slices(splitter.finish(), limit)


def _slices(lines: list[Line], limit: int) -> Iterator[list[Line]]:
    for start in range(0, len(lines), limit):
        yield lines[start : start + limit]


def _outcome_unknown(name: str, error: OutcomeUnknown) -> CommandError:
    if error.window:
        window = format_duration(error.window)
        hint = f"publish again from there: within {window} no message of them is duplicated"
    else:
        hint = "the lines before them were published, the lines after them were not"
    these = f"these {error.count} messages were" if error.count > 1 else "this message was"
    return CommandError(
        f"{name}:{error.first}-{error.last}: it is unknown whether {these} published: {error}",
        hint=hint,
        code=UNAVAILABLE,
    )


def _report_rejected(name: str, rejected: RejectedLine, *, json: bool) -> None:
    if json:
        print_message(jsonlib.dumps({"file": name, **rejected.to_json()}))
    else:
        print_message(f"{printable(name)}:{rejected.line}: {printable(str(rejected.error))}")


def _report_result(result: BulkResult, *, json: bool) -> None:
    if json:
        print_json(result)
    else:
        unknown = f", unknown {result.unknown:,}" if result.unknown else ""
        duplicates = f", duplicates {result.duplicates:,}" if result.duplicates else ""
        print_message(f"published {result.published:,}{duplicates}, rejected {result.rejected:,}{unknown}")


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
def _progress_bar(stream: BinaryIO) -> Iterator[Callable[[int], None]]:
    """Yield a function that advances a progress bar by a number of bytes; only a terminal shows the bar."""
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
