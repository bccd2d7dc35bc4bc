"""`abe-router serve`: run the routes, and reload the file when it changes."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import click

from abe_router.cli.access import require_backend
from abe_router.cli.errors import BUG, CONFIG, USAGE, CommandError
from abe_router.cli.examples import as_command
from abe_router.cli.http_server import plan_server
from abe_router.cli.options import (
    allow_handlers_option,
    backend_option,
    option,
    routes_argument,
    trust_writable_option,
    workers_option,
)
from abe_router.cli.output import wants_color
from abe_router.errors import ConfigError
from abe_router.observe.logs import JSONFormatter, TextFormatter, log_listener, start_logging
from abe_router.process.signals import run_as_init
from abe_router.process.systemd import JournalFormatter, ServiceNotifier, is_journal

_log = logging.getLogger("abe_router")

#: The options before the command that take a value.
_CONFIG = ("-c", "--config")


@as_command(
    "serve",
    """
    abe-router serve
    abe-router serve shop.yaml --backend redis://localhost/0
    abe-router serve --workers auto --reload-handlers
    abe-router serve --http
    abe-router serve --once
    """,
)
@routes_argument
@backend_option
@workers_option
@option("--reload-handlers", is_flag=True, help="Replace the workers one by one when handler code changes.")
@option(
    "--drain",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Longest wait for handlers at shutdown.",
)
@option(
    "--http",
    is_flag=False,
    flag_value="",
    metavar="[ADDRESS]",
    help="Serve the API and the probes at this address; by default that of the file, or 127.0.0.1:8470.",
)
@option("--once", is_flag=True, help="Exit when no message is left to handle.")
@option("--no-watch", is_flag=True, help="Do not reload the file when it changes.")
@option("--no-tests", is_flag=True, help="Do not read `tests` of the file: no fault in them blocks an edit.")
@option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    envvar="ABE_ROUTER_LOG_FORMAT",
    help="Format of log lines; by default text on a terminal, otherwise JSON.",
)
@option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    envvar="ABE_ROUTER_LOG_LEVEL",
    help="Lowest level that is logged; debug logs every message.",
)
@option("-v", "--verbose", is_flag=True, help="Log every message, as --log-level debug does.")
@allow_handlers_option
@trust_writable_option
@click.option("--as-worker", type=(int, int, bool), hidden=True, allow_from_autoenv=False)
@click.pass_obj
def command(
    given: Sequence[str],
    routes: Path,
    backend: str | None,
    workers: int,
    reload_handlers: bool,
    drain: float | None,
    http: str | None,
    once: bool,
    no_watch: bool,
    no_tests: bool,
    log_format: str | None,
    log_level: str,
    verbose: bool,
    allow_handlers: Sequence[str],
    trust_writable: bool,
    as_worker: tuple[int, int, bool] | None,
) -> int:
    """Run the routes of the file, and reload it when it changes.

    On SIGTERM or SIGINT, running handlers are finished before the exit; a second signal exits at once. Log
    lines go to stderr. The handlers that the file names are imported and run: treat the file as code.

    With several workers, or with --reload-handlers, a supervisor starts the workers, restarts those that
    crash and forwards signals. The workers share the messages of every group, which needs SQLite or Redis.
    With --http, or `http` in the file, a supervisor also serves the API, and a worker does for memory://.

    The exit code is 0 when all running handlers were finished, and 1 when the drain time ended first.
    """
    if os.getpid() == 1 and (ended := run_as_init()) is not None:
        return ended
    level = logging.getLevelNamesMapping()["DEBUG" if verbose else log_level.upper()]
    as_text = sys.stderr.isatty() if log_format is None else log_format == "text"
    number = as_worker[0] if as_worker else 0
    formatter: logging.Formatter = JSONFormatter(worker=number)
    if as_text:
        formatter = TextFormatter(color=wants_color(sys.stderr), worker=number)
    if is_journal(sys.stderr):
        formatter = JournalFormatter(formatter)
    start_logging(sys.stderr, level, formatter, in_thread=True)
    service = ServiceNotifier.from_env()
    require_backend(backend, routes)
    beside = None
    if as_worker is None:
        watch = not no_watch
        beside = plan_server(routes, http, backend=backend, trust_writable=trust_writable, watch=watch)
    if as_worker is None and (workers > 1 or reload_handlers or (beside and beside.asked)):
        from abe_router.process.supervisor import Supervisor

        command = partial(_worker_command, given, caches=not reload_handlers)
        supervisor = Supervisor(
            command,
            workers,
            once=once,
            reload_handlers=reload_handlers,
            service=service,
            beside=beside.supervisor if beside else None,
        )
        return asyncio.run(supervisor.run())
    from abe_router.process.channel import FORWARDED, ControlChannel, Rejected

    channel = ControlChannel(*as_worker[:2]) if as_worker else None
    from abe_router.config.building.loader import Loader
    from abe_router.process.deadline import exit_within
    from abe_router.process.worker import Worker, load_running_edit

    make_loader = partial(
        Loader,
        allow_handlers=allow_handlers,
        trust_writable=trust_writable,
        tests="off" if no_tests else "warn",
    )
    loader = make_loader(routes, backend=backend)
    # What is made until the routes run lives until the end. The garbage collector would look through it again
    # and again, which takes 30 ms with 1,000 routes. The worker enables it when they run.
    gc.disable()
    try:
        table = loader.load()
    except ConfigError as error:
        if channel is None or as_worker is None:
            raise
        in_force = load_running_edit(loader, make_loader) if as_worker[2] else None
        if in_force is None:
            channel.send(Rejected(error.diagnostics))
            return CONFIG
        table = in_force
    if number < 2:
        _log.info("backend %s", table.shown_backend)
    worker = Worker(
        loader,
        table,
        listeners=[log_listener(level, without=FORWARDED if channel else ())],
        watch=not no_watch,
        once=once,
        drain=drain,
        channel=channel,
        service=service,
        beside=beside.worker if beside else None,
    )
    if channel is not None and not worker.features.processes:
        hint = "use sqlite:///PATH or redis://HOST, or leave out --workers and --reload-handlers"
        raise CommandError("the backend cannot be shared by several workers", hint=hint, code=USAGE)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        # Threads that hang would hold up the end of the loop and of the interpreter.
        try:
            code = worker.run_in(runner.get_loop())
        except BaseException:
            exit_within(BUG, 5.0)  # enough to report the error
            raise
        exit_within(code)
        sys.stdout.flush()
    return code


def _worker_command(
    given: Sequence[str], number: int, line: int, later: bool, *, caches: bool
) -> Sequence[str]:
    """Return the command line of a worker: that of its supervisor, with the option that makes it a worker.

    The import path of the supervisor is that of its workers: `-m` adds the current folder, and `-P` does not.
    Without `caches` the worker writes no compiled code. Python takes a file that is saved twice within a
    second, with the same size, for unchanged, so a cache could hide an edit from the next worker.
    """
    before = ["", *given]  # a routes file may have the name of the command
    serve = next(i for i, text in enumerate(given, 1) if text == "serve" and before[i - 1] not in _CONFIG)
    mark = ("--as-worker", str(number), str(line), str(later))
    safe = () if _imports_current_folder() else ("-P",)
    python = (sys.executable, *safe, *(() if caches else ("-B",)), "-m", "abe_router")
    return (*python, *given[:serve], *mark, *given[serve:])


def _imports_current_folder() -> bool:
    with suppress(FileNotFoundError):  # the folder was removed
        return not {"", str(Path.cwd())}.isdisjoint(sys.path)
    return False


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's event loop if it is installed; it is faster."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
