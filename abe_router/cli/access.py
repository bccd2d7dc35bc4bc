"""Reading the routes file and reaching the backend, for the commands that need them."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, redirect_stdout
from pathlib import Path

import click
from click.core import ParameterSource

from abe_router.backend import Backend
from abe_router.cli.failure import CONFIG, Failure
from abe_router.cli.screen import say
from abe_router.errors import BackendError, ConfigError
from abe_router.routing.table import RouteTable


def read_table(
    path: Path,
    *,
    backend: str | None = None,
    import_handlers: bool = False,
    allow_handlers: Sequence[str] = (),
    trust_writable: bool = True,
) -> RouteTable:
    """Return the table of a routes file; raise ConfigError with every fault in it.

    Handlers are imported only on request: that runs the user's code, and what it prints goes to stderr, so
    that stdout stays data. Where no code is run, it does not matter who may write the file. Raise Failure
    when there can be no such `backend`.
    """
    from abe_router.config.building.loader import Loader

    require_backend(backend)
    loader = Loader(
        path,
        allow_handlers=allow_handlers,
        import_handlers=import_handlers,
        backend=backend,
        trust_writable=trust_writable,
    )
    with redirect_stdout(sys.stderr):
        return loader.load()


def read_table_if_any(path: Path, *, backend: str | None) -> RouteTable:
    """Return the table of a routes file, or one without routes where there is none to be had.

    That is so when the file has faults, for the workers run on with what they have, and when there is no
    file but a backend is named. Raise ConfigError when not even the backend is known, and Failure when there
    can be no such backend.
    """
    from abe_router.config.building.loader import Loader

    require_backend(backend)
    if backend is not None and not path.exists():
        return RouteTable(backend=backend)
    loader = Loader(path, import_handlers=False, backend=backend, trust_writable=True)
    try:
        return loader.load()
    except ConfigError:
        table = RouteTable(backend=backend) if backend is not None else loader.salvage()
        if table is None:
            raise
        say(f"warning: {path} has faults, its routes are not known; `abe-router check` shows them")
        return table


def require_backend(url: str | None) -> None:
    """Raise Failure when the command line names a backend that cannot be: that is no fault of the file."""
    from abe_router.backends import make_backend

    try:
        if url is not None:
            make_backend(url)
    except BackendError as error:
        context = click.get_current_context(silent=True)
        source = context.get_parameter_source("backend") if context else None
        name = "ABE_ROUTER_BACKEND" if source is ParameterSource.ENVIRONMENT else "--backend"
        raise Failure(f"{name}: {error}", code=CONFIG) from error


@asynccontextmanager
async def reach(
    table: RouteTable, *, prefix: str | None = None, only_read: bool = False
) -> AsyncIterator[Backend]:
    """Connect to the backend of a table; raise Failure when it is of one process alone, or BackendError.

    Where `only_read` says that nothing is published, a file that is not there yet is not made: an empty
    backend in memory stands in for it.
    """
    from abe_router.backends import make_backend

    backend = make_backend(table.backend, prefix=table.prefix if prefix is None else prefix)
    if not backend.features.processes:
        raise Failure(
            f"backend `{table.backend}` lives in one process, and this is another",
            hint="use sqlite:///PATH or redis://HOST, in the file or by --backend",
            code=CONFIG,
        )
    if only_read and (missing := _missing_file(backend)):
        say(f"`{missing}` does not exist yet: nothing was published to it")
        backend = make_backend("memory://")
    await backend.open()
    try:
        yield backend
    finally:
        await backend.close()


def _missing_file(backend: Backend) -> str:
    """Return the file of an SQLite backend that is still to be made in its folder, or nothing."""
    if not backend.url.startswith("sqlite:///"):
        return ""
    path = Path(backend.url.removeprefix("sqlite:///"))
    if path.exists() or path.is_symlink() or not path.parent.is_dir():
        return ""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
