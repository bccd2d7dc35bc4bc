"""The state of a running system: every subscription, the workers, and the edit in force."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import msgspec

from abe_router.backend import Backend
from abe_router.errors import BackendError
from abe_router.operations.access import missing_file, table_backend
from abe_router.operations.subscriptions import SubscriptionState, subscription_states
from abe_router.routing.table import RouteTable
from abe_router.runtime.edit_files import MakeLoader, unimported
from abe_router.runtime.edit_record import EditRecord, edit_in_force, load_edit, read_edits
from abe_router.runtime.heartbeat import (
    PendingRestart,
    ServedRoutes,
    WorkerReport,
    pending_restarts,
    read_workers,
)
from abe_router.runtime.override import read_overrides
from abe_router.text import redact_url


class Status(msgspec.Struct, frozen=True):
    """The state of every subscription and every worker.

    `node` is the server of a cluster or of Sentinels that serves the backend now, otherwise empty.
    `revision` is that of the table, or empty if the file was not read. `workers` has the last report of each
    worker. None is a report of another version of this package. If the workers rejected the file, for example
    because a handler cannot be imported, `edit` is the number of the edit that they run, and `routes` and
    `revision` are those of that edit.
    """

    backend: str
    revision: str
    routes: tuple[SubscriptionState, ...]
    workers: Mapping[str, WorkerReport | None]
    edit: int | None = None
    node: str = ""

    @property
    def served(self) -> ServedRoutes:
        """Which of the workers run which routes."""
        return ServedRoutes.of(self.workers)


class HostReadiness(msgspec.Struct, frozen=True):
    """The number of workers of a host that have reported, and how many of them cannot reach the backend."""

    host: str
    workers: int
    disconnected: int

    @property
    def ready(self) -> bool:
        """Whether there is at least one worker, and all are connected."""
        return self.workers > 0 and not self.disconnected


async def read_status(table: RouteTable, backend: Backend) -> Status:
    """Return the state of every subscription and every worker on a backend."""
    workers = await read_workers(backend)
    edit, table = await _edit_of_workers(table, backend, workers) or (None, table)
    return Status(
        backend=redact_url(table.backend),
        revision=table.revision,
        routes=subscription_states(table, await backend.status(), await read_overrides(backend)),
        workers=workers,
        edit=edit.number if edit else None,
        node=backend.node,
    )


async def find_edit_of_workers(
    table: RouteTable, *, prefix: str | None = None
) -> tuple[tuple[EditRecord, RouteTable] | None, Sequence[PendingRestart]]:
    """Return the edit that workers run, and its table, if they have rejected the file of `table`, else None.

    Return also the workers that serve the former backend of the file. Nothing is known if the backend cannot
    be reached. An SQLite file is not created.
    """
    backend = table_backend(table, prefix=prefix)
    if not backend.features.processes or missing_file(backend):
        return None, ()
    try:
        async with backend:
            workers = await read_workers(backend)
            restarts: Sequence[PendingRestart] = ()
            if table.path and table.revision not in {
                worker.revision for worker in workers.values() if worker
            }:
                restarts = await pending_restarts(backend, table.path)
            return await _edit_of_workers(table, backend, workers), restarts
    except BackendError:
        return None, ()


async def _edit_of_workers(
    table: RouteTable, backend: Backend, workers: Mapping[str, WorkerReport | None]
) -> tuple[EditRecord, RouteTable] | None:
    reports = [worker for worker in workers.values() if worker is not None]
    if not table.revision or table.revision in {worker.revision for worker in reports}:
        return None
    return await _find_edit(table, backend, {worker.revision for worker in reports if worker.rejected})


async def is_in_force(backend: Backend, table: RouteTable, former: RouteTable) -> bool:
    """Return whether an edit counts that replaces `former` by `table`: unless workers run `former` alone."""
    running = {worker.revision for worker in (await read_workers(backend)).values() if worker}
    return table.revision in running or former.revision not in running


async def check_host(backend: Backend, host: str) -> HostReadiness:
    """Return whether the workers of a host run and reach the backend."""
    workers = [worker for worker in (await read_workers(backend)).values() if worker and worker.host == host]
    disconnected = sum(not all(route.connected for route in worker.routes.values()) for worker in workers)
    return HostReadiness(host, len(workers), disconnected)


async def load_edit_in_force(
    salvaged: RouteTable, *, prefix: str | None = None, make_loader: MakeLoader = unimported
) -> tuple[EditRecord, RouteTable] | None:
    """Return the edit in force of a faulty file, and its table; None if the backend does not know it.

    `salvaged` is what `load_table_or_backend` returned for the file. An SQLite file is not created.
    `make_loader` makes the loader of the files; by default no handler is imported.
    """
    backend = table_backend(salvaged, prefix=prefix)
    if salvaged.path is None or not backend.features.processes or missing_file(backend):
        return None
    try:
        async with backend:
            running = {worker.revision for worker in (await read_workers(backend)).values() if worker}
            return await _find_edit(salvaged, backend, running, or_last=True, make_loader=make_loader)
    except BackendError:
        return None


async def _find_edit(
    table: RouteTable,
    backend: Backend,
    running: Collection[str],
    *,
    or_last: bool = False,
    make_loader: MakeLoader = unimported,
) -> tuple[EditRecord, RouteTable] | None:
    """Return the edit of the file of `table` that is among the running revisions, and its table.

    With `or_last`, the last edit if none is.
    """
    if table.path is None or not (running or or_last):
        return None
    edit = edit_in_force(await read_edits(backend), table.path, running)
    if edit is None or not (or_last or edit.revision in running):
        return None
    loaded = await load_edit(backend, edit, table.backend, table.path, make_loader)
    if loaded is None:
        return None
    return edit, replace(loaded, backend_chosen_by=table.backend_chosen_by)
