"""The options that several commands share; each shows its environment variable in the help."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def option(*names: str, **rest: Any) -> Callable[[Decorated], Decorated]:
    """Return click's option, with its environment variable in the help."""
    return click.option(*names, show_envvar=True, **rest)


#: Name of the routes file, and the entry of `click.Context.meta` that has the path given with `-c`.
ROUTES, _CONFIG = "routes.yaml", "abe_router.config"
_PATH = click.Path(path_type=Path, readable=False)  # an unreadable file is a diagnostic with a code


def nearest_routes_file() -> Path:
    """Return `routes.yaml` of this folder, or of the nearest parent that has one.

    The file is code. So one in a parent folder counts only if it belongs to the user or to root: a folder
    such as /tmp is shared.
    """
    path = Path(ROUTES)
    try:
        parents = Path.cwd().parents
    except FileNotFoundError:  # the folder was removed
        return path
    if not os.path.lexists(path):
        for number in range(1, len(parents) + 1):
            above = Path(*[os.pardir] * number, ROUTES)
            if above.is_file() and above.stat().st_uid in (os.getuid(), 0):
                return above
    return path


def _keep_config(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
    """Keep the path that `-c` or the variable names. What the command line says takes precedence."""
    from_variable = ctx.get_parameter_source(param.name or "") is not ParameterSource.COMMANDLINE
    if value is not None and not (from_variable and _CONFIG in ctx.meta):
        ctx.meta[_CONFIG] = value


def _routes_file(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path:
    """Return the routes file: that of the command line, of the variable, or the nearest one."""
    if isinstance(param, click.Option):
        _keep_config(ctx, param, value)
    elif value is not None:
        if ctx.get_parameter_source("config") is ParameterSource.COMMANDLINE:
            raise click.UsageError("give the routes file once: as ROUTES or with -c", ctx)
        return value
    return ctx.meta.get(_CONFIG) or nearest_routes_file()


#: `-c` before the command: `abe-router -c shop.yaml status`.
root_config_option = click.option(
    "-c",
    "--config",
    metavar="ROUTES",
    type=_PATH,
    expose_value=False,
    allow_from_autoenv=False,
    callback=_keep_config,
    help="The routes file.",
)
_config: dict[str, Any] = {
    "metavar": "ROUTES",
    "envvar": "ABE_ROUTER_CONFIG",
    "type": _PATH,
    "help": "The routes file; by default routes.yaml here or in a parent folder.",
}
config_option = option("-c", "--config", "routes", callback=_routes_file, **_config)


def routes_argument(command: Decorated) -> Decorated:
    """Add the argument ROUTES, and `-c` as another way to give it."""
    argument = click.argument("routes", required=False, type=_PATH, callback=_routes_file)
    given = option(
        "-c", "--config", "config", is_eager=True, expose_value=False, callback=_keep_config, **_config
    )
    return argument(given(command))


def _given_backend(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Return the URL of the command line alone: `choose_backend` reads the variable."""
    is_variable = ctx.get_parameter_source(param.name or "") is ParameterSource.ENVIRONMENT
    return None if is_variable else value


backend_option = option(
    "--backend",
    metavar="URL",
    envvar="ABE_ROUTER_BACKEND",
    callback=_given_backend,
    help="Use this backend instead of the file's.",
)
prefix_option = option(
    "--prefix",
    metavar="TEXT",
    envvar="ABE_ROUTER_PREFIX",
    help="Use this prefix of stream names instead of the file's.",
)
json_option = option("--json", is_flag=True, help="Print JSON.")
allow_handlers_option = option(
    "--allow-handlers",
    metavar="PATTERN",
    multiple=True,
    envvar="ABE_ROUTER_ALLOW_HANDLERS",
    help="Import only handlers that match, such as 'shop.*'; can be repeated.",
)
trust_writable_option = option(
    "--trust-writable",
    is_flag=True,
    envvar="ABE_ROUTER_TRUST_WRITABLE",
    help="Accept a routes file that every user of this machine can write.",
)


def _parse_headers(ctx: click.Context, param: click.Parameter, given: Sequence[str]) -> dict[str, str]:
    headers = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"`{text}` is not NAME=VALUE", ctx, param)
        headers[name] = value
    return headers


headers_option = option(
    "--header",
    "headers",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_parse_headers,
    help="Add a header; can be repeated.",
)


def parse_duration_option(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return the seconds of an option such as `90s` or `5m`."""
    if value is None:
        return None
    from abe_router.text import parse_duration  # `--help` does not need it

    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}, such as 90s or 5m", ctx, param) from None


def _count_workers(ctx: click.Context, param: click.Parameter, value: str) -> int:
    if value == "auto":
        from abe_router.process.supervisor import available_cores

        return available_cores()
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(f"`{value}` is neither a number of processes nor `auto`", ctx, param)
    return int(value)


workers_option = option(
    "--workers",
    default="1",
    callback=_count_workers,
    metavar="N|auto",
    help="Number of worker processes; auto starts one for each processor.",
)


def _split_route(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, str] | None:
    """Return the key and the group of a route's name; neither of them can contain a slash."""
    if value is None:
        return None
    key, _, group = value.partition("/")
    from abe_router.messages.pattern import is_group, is_pattern  # `--help` needs neither

    if not is_pattern(key) or not is_group(group):
        raise click.BadParameter(f"`{value}` is not KEY/GROUP, such as orders.created/billing", ctx, param)
    return key, group


def route_argument(*, required: bool = True) -> Callable[[Decorated], Decorated]:
    """Return the argument ROUTE, which the command receives as (key, group)."""
    metavar = "KEY/GROUP" if required else "[KEY/GROUP]"
    return click.argument("route", metavar=metavar, required=required, callback=_split_route)


def backend_options(command: Decorated) -> Decorated:
    """Add the options that name the backend: the routes file, another backend, another prefix."""
    return config_option(backend_option(prefix_option(command)))
