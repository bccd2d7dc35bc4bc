"""Reading the routes file and reaching the backend, for the commands that need them."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, redirect_stdout
from pathlib import Path

from abe_router.backend import Backend
from abe_router.cli.failure import CONFIG, Failure
from abe_router.cli.screen import say
from abe_router.errors import ConfigError
from abe_router.route import RouteTable


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
    that stdout stays data. Where no code is run, it does not matter who may write the file.
    """
    from abe_router.config import Loader

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
    file but a backend is named. Raise ConfigError when not even the backend is known, and BackendError when
    there can be no such backend.
    """
    from abe_router.config import Loader

    if backend is not None and not path.exists():
        return RouteTable(backend=backend)
    loader = Loader(path, import_handlers=False, backend=backend, trust_writable=True)
    try:
        return loader.load()
    except ConfigError:
        if backend is not None:
            from abe_router.backends import make_backend

            make_backend(backend)  # a URL that is none is no fault of the file
        table = RouteTable(backend=backend) if backend is not None else loader.salvage()
        if table is None:
            raise
        say(f"warning: {path} has faults, its routes are not known; `abe-router check` shows them")
        return table


@asynccontextmanager
async def reach(table: RouteTable, *, prefix: str | None = None) -> AsyncIterator[Backend]:
    """Connect to the backend of a table; raise Failure when it is of one process alone, or BackendError."""
    from abe_router.backends import make_backend

    backend = make_backend(table.backend, prefix=table.prefix if prefix is None else prefix)
    if not backend.features.processes:
        raise Failure(
            f"backend `{table.backend}` lives in one process, and this is another",
            hint="use sqlite:///PATH or redis://HOST, in the file or by --backend",
            code=CONFIG,
        )
    await backend.open()
    try:
        yield backend
    finally:
        await backend.close()
