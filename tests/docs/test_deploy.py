"""docs/deploy.md: its files are well-formed, and its commands exist."""

from __future__ import annotations

import asyncio
import configparser
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from abe_router.backends.sqlite import SQLiteBackend
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


async def run_block(title: str, folder: Path) -> None:
    """Run the commands of a block in a folder, in which there is a routes file for `queue.db`."""
    (text,) = (block.text for block in blocks(PAGE, "sh") if block.title == title)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-ec",
        text,
        cwd=folder,
        env={**os.environ, "PATH": path, "ABE_ROUTER_CONFIG": "routes.yaml"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


async def test_backup_under_traffic_and_restore_as_the_page_describes(tmp_path):
    path = tmp_path / "queue.db"
    (tmp_path / "routes.yaml").write_text(
        "backend: sqlite:///queue.db\nroutes:\n  a:\n    consumers:\n      g: os.path:basename\n"
    )
    accepted, is_over = 0, False

    async def publish(backend):
        nonlocal accepted
        while not is_over:
            await backend.publish("a", accepted)
            accepted += 1

    async with SQLiteBackend(path) as backend:
        handle = await backend.subscribe("a", "g")
        publishing = asyncio.create_task(publish(backend))
        await asyncio.sleep(0.1)
        before = accepted
        await run_block("backup", tmp_path)
        after = accepted
        await asyncio.sleep(0.1)
        is_over = True
        await publishing
        await handle.close()
    assert 0 < before < after < accepted
    assert (tmp_path / "backup.db").stat().st_mode & 0o777 == 0o600
    await run_block("restore", tmp_path)
    async with SQLiteBackend(path) as backend:
        (status,) = await backend.status()
        assert before <= status.ready <= after
        await backend.publish("a", "new")
        handle = await backend.subscribe("a", "g")
        bodies = [delivery.message.body for delivery in await handle.fetch(accepted, 1)]
        while len(bodies) <= status.ready:
            bodies += [delivery.message.body for delivery in await handle.fetch(accepted, 1)]
    assert bodies == [*(b"%d" % n for n in range(status.ready)), b'"new"']
    async with SQLiteBackend(tmp_path / "before" / "queue.db") as backend:
        (status,) = await backend.status()
        assert status.ready == accepted
