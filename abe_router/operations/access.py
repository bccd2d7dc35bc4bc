"""Loading the routes file and making the backend that an operation works on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from abe_router.backend import Backend
from abe_router.backends import make_backend
from abe_router.config.building.backend_url import choose_backend
from abe_router.config.building.loader import Loader
from abe_router.errors import ConfigError
from abe_router.operations.errors import BackendNotShared
from abe_router.routing.table import RouteTable


def load_table(
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

    `backend` is a URL that takes precedence over the file's. Importing the handlers runs user code, so it is
    off by default. Without it, a world-writable file is accepted. With `confined`, no file outside the folder
    of the routes file is read. With `strict`, faults in `tests` are errors, otherwise warnings.
    """
    return Loader(
        path,
        allow_handlers=allow_handlers,
        import_handlers=import_handlers,
        backend=backend,
        trust_writable=trust_writable,
        confined=confined,
        tests="strict" if strict else "warn",
    ).load()


def load_table_or_backend(path: Path, *, backend: str | None) -> tuple[RouteTable, ConfigError | None]:
    """Return the table of a routes file, and the error if the file has faults.

    The table of a faulty file has neither routes nor revision, only the backend and the prefix. Workers
    continue with their last valid table: see `status.load_edit_in_force`. If there is no file but the backend
    is given, such a table is returned without an error. Raise ConfigError if the backend is unknown.
    """
    choice = choose_backend(backend, None, path.parent)
    if choice.overrides_file and not path.exists():
        return RouteTable(backend=choice.url, backend_chosen_by=choice.chosen_by), None
    loader = Loader(path, import_handlers=False, backend=backend, trust_writable=True, tests="off")
    try:
        return loader.load(), None
    except ConfigError as error:
        table = loader.salvage()
        if table is None and choice.overrides_file:
            table = RouteTable(backend=choice.url, backend_chosen_by=choice.chosen_by, path=path)
        if table is None:
            raise
        return table, error


def check_backend_url(url: str) -> None:
    """Raise BackendError if the URL is not that of a backend. Nothing is connected."""
    make_backend(url)


def table_backend(table: RouteTable, *, prefix: str | None = None) -> Backend:
    """Return the backend of a table, without connecting. Raise BackendError if its URL is wrong.

    `prefix` takes precedence over the table's.
    """
    return make_backend(table.backend, prefix=table.prefix if prefix is None else prefix)


def shared_backend(table: RouteTable, *, prefix: str | None = None) -> Backend:
    """Return the backend of a table. Raise BackendNotShared if other processes cannot use it."""
    backend = table_backend(table, prefix=prefix)
    if not backend.features.processes:
        raise BackendNotShared(
            f"backend `{table.backend}` lives in one process, and this is another process",
            hint="use sqlite:///PATH or redis://HOST, in the file or with --backend",
        )
    return backend


def empty_backend() -> Backend:
    """Return a backend without messages, to read from while the storage of the real one does not exist."""
    return make_backend("memory://")


def missing_file(backend: Backend) -> Path | None:
    """Return the file of an SQLite backend if the folder exists but the file does not, else None.

    Opening the backend would create the file, which an operation that only reads must not do.
    """
    if not backend.url.startswith("sqlite:///"):
        return None
    path = Path(backend.url.removeprefix("sqlite:///"))
    if path.exists() or path.is_symlink() or not path.parent.is_dir():
        return None
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
