"""docs/deploy.md: its files are well-formed, and its commands exist."""

from __future__ import annotations

import configparser
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from abe_router.cli.root import root
from abe_router.routing.route import Route

from .blocks import blocks

PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"
UNIT, COMPOSE, DEPLOYMENT = (block.text for block in blocks(PAGE, "ini", "yaml"))


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read_string(UNIT)
    return parser


def commands() -> Iterator[list[str]]:
    yield shlex.split(unit()["Service"]["ExecStart"])[1:]
    router = yaml.safe_load(COMPOSE)["services"]["router"]
    yield shlex.split(router["command"])[1:]
    yield router["healthcheck"]["test"][2:]
    (container,) = pod()["containers"]
    yield container["command"][1:]
    yield container["readinessProbe"]["exec"]["command"][1:]
    for text in re.findall(r"`abe-router ([^`]+)`", PAGE.read_text()):
        yield shlex.split(text)


def pod() -> Any:
    return yaml.safe_load(DEPLOYMENT)["spec"]["template"]["spec"]


@pytest.mark.parametrize("arguments", list(commands()), ids=shlex.join)
def test_command_of_the_page_has_valid_arguments(arguments):
    context = root.make_context("abe-router", arguments)
    command = root.get_command(context, arguments[0])
    assert command is not None
    command.make_context(arguments[0], arguments[1:], parent=context)


def test_stop_timeouts_are_longer_than_the_default_drain():
    drain = Route.__dataclass_fields__["drain"].default
    assert int(unit()["Service"]["TimeoutStopSec"]) > drain
    assert int(yaml.safe_load(COMPOSE)["services"]["router"]["stop_grace_period"].rstrip("s")) > drain
    assert pod()["terminationGracePeriodSeconds"] > drain


def test_page_names_only_known_environment_variables():
    known = {"ABE_ROUTER_CONFIG"}
    for name in root.list_commands(click.Context(root)):
        command = root.get_command(click.Context(root), name)
        for parameter in command.params if command else ():
            names = parameter.envvar or ()
            known |= {names} if isinstance(names, str) else {*names}
    assert set(re.findall(r"ABE_ROUTER_\w+", PAGE.read_text())) <= known
