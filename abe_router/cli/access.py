"""Reading the routes file and opening the backend, for the commands that need them."""

from __future__ import annotations

import asyncio
import gc
import re
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, redirect_stdout
from pathlib import Path

from abe_router.backend import Backend
from abe_router.backend.time_limit import publish_timeout
from abe_router.cli.errors import CONFIG, CommandError
from abe_router.cli.output import print_message
from abe_router.config.building.backend_url import ARGUMENT, VARIABLE, BackendChoice, choose_backend
from abe_router.errors import BackendError, ConfigError
from abe_router.routing.table import RouteTable
from abe_router.runtime.override import Override
from abe_router.text import format_age, printable

_HOST_AND_PORT = re.compile(r"[\w.-]+:\d+")


def read_table(
    path: Path,
    *,
    backend: str | None = None,
    import_handlers: bool = False,
    allow_handlers: Sequence[str] = (),
    trust_writable: bool = True,
    confined: bool = False,
    strict: bool = False,
) -> RouteTable:
    """Return the table of a routes file; raise ConfigError with every fault in it.

    With `confined`, no file outside the folder of the routes file is read. With `strict`, faults in `tests`
    are errors, otherwise warnings. What imported handlers print goes to stderr, so that stdout stays
    data. Raise CommandError when the `backend` of the command line is not one.
    """
    from abe_router.operations.access import load_table

    require_backend(backend, path)
    with redirect_stdout(sys.stderr):
        return load_table(
            path,
            backend=backend,
            import_handlers=import_handlers,
            allow_handlers=allow_handlers,
            trust_writable=trust_writable,
            confined=confined,
            strict=strict,
        )


def read_table_in_force(
    path: Path, *, backend: str | None, prefix: str | None = None, ask: bool = False
) -> tuple[RouteTable, ConfigError | None]:
    """Return the table of a routes file, or, while the file has faults, the one that workers run.

    With `ask`, the backend is asked also whether the workers rejected a file without visible faults, for
    example because a handler cannot be imported.
    The second value is the error of a faulty file; a warning was printed. If the backend does not know the
    edit in force, and if there is no file but `backend` is given, the table has no routes and no revision.
    Raise ConfigError when the backend is not known, and CommandError when `backend` is not one.
    """
    from abe_router.operations.access import load_table_or_backend

    require_backend(backend, path)
    table, error = load_table_or_backend(path, backend=backend)
    gc.freeze()  # the modules stay until the exit, where to look through them takes a seventh of a command
    if error is None and not ask:
        return table, None
    from abe_router.operations.status import find_edit_of_workers, load_edit_in_force

    if error is None:
        rejected, restarts = asyncio.run(find_edit_of_workers(table, prefix=prefix))
        for old in sorted({each.backend for each in restarts}):
            print_message(
                f"warning: the router serves {printable(old)}, the former backend of {printable(str(path))}, "
                "until it is restarted"
            )
        if rejected is not None:
            edit, table = rejected
            print_message(f"warning: the workers rejected {printable(str(path))}; edit {edit.number} counts")
        return table, None
    found = asyncio.run(load_edit_in_force(table, prefix=prefix))
    if found is None:
        known = "no accepted edit is known, so its routes are unknown"
    else:
        edit, table = found
        known = f"edit {edit.number}, accepted {format_age(time.time() - edit.offered_at)} ago, counts"
    print_message(f"warning: {printable(str(path))} has faults; {known}; run `abe-router check`")
    return table, error


def read_overrides(table: RouteTable) -> Sequence[Override]:
    """Return the overrides in force; print a warning if the backend cannot be reached."""
    from abe_router.operations.overrides import overrides_in_force

    found = asyncio.run(overrides_in_force(table))
    if found is None:
        print_message("warning: the backend cannot be reached, so pauses and limits by operators are unknown")
    return found or ()


def require_backend(url: str | None, routes: Path) -> BackendChoice:
    """Return the backend of the option or the variable; raise CommandError, naming it, if it is not one.

    If neither is given, the file decides, and its faults are diagnostics.
    """
    from abe_router.operations.access import check_backend_url

    choice = choose_backend(url, None, routes.parent)
    try:
        if choice.overrides_file:
            check_backend_url(choice.url)
    except BackendError as error:
        name = "--backend" if choice.chosen_by == ARGUMENT else VARIABLE
        close = f"did you mean `redis://{choice.url}`?" if _HOST_AND_PORT.fullmatch(choice.url) else ""
        raise CommandError(f"{name}: {error}", hint=close, code=CONFIG) from error
    return choice


@asynccontextmanager
async def open_to_publish(table: RouteTable, seconds: float | None) -> AsyncIterator[tuple[Backend, float]]:
    """Connect to the backend of a table; yield it with how long a publish may still take, in seconds.

    `seconds` replaces the time limit of the backend. Raise BackendNotShared, PublishTimeout or another
    BackendError.
    """
    from abe_router.operations.access import shared_backend

    backend, loop = shared_backend(table), asyncio.get_running_loop()
    until = loop.time() + (backend.publish_timeout if seconds is None else seconds)
    try:
        try:
            async with asyncio.timeout_at(until):
                await backend.open()
        except TimeoutError:
            raise publish_timeout(f"`{backend.url}`", sent=False) from None
        yield backend, max(0.0, until - loop.time())
    finally:
        await backend.close()


@asynccontextmanager
async def open_backend(
    table: RouteTable, *, prefix: str | None = None, only_read: bool = False
) -> AsyncIterator[Backend]:
    """Connect to the backend of a table; raise BackendNotShared or another BackendError.

    With `only_read`, an SQLite file that does not exist is not created: an empty backend in memory is opened
    in place of it.
    """
    from abe_router.operations.access import empty_backend, missing_file, shared_backend

    backend = shared_backend(table, prefix=prefix)
    if only_read and (missing := missing_file(backend)):
        print_message(
            f"`{printable(str(missing.absolute()))}` does not exist yet: no message was published to it"
        )
        backend = empty_backend()
    async with backend:
        yield backend
