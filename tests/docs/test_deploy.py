"""docs/deploy.md: it shows the files of examples/operating as they are, and its commands exist."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from abe_router.backends.sqlite import SQLiteBackend
from abe_router.cli.root import root
from tests.deployment.files import environment_variables

from .blocks import Block, blocks

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "operating"
PAGE = ROOT / "docs" / "deploy.md"
SHELL = {block.title: block.text for block in blocks(PAGE, "sh")}


@pytest.mark.parametrize("block", blocks(PAGE, "dockerfile", "yaml", "ini"), ids=lambda block: block.title)
def test_block_is_a_part_of_the_shipped_file(block: Block):
    assert block.text in (ROOT / block.title).read_text()


def test_page_lists_the_files_of_the_folder():
    text = PAGE.read_text()
    (table,) = re.findall(r"^\| file \| is \|\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    listed = re.findall(r"`([^`]+)`", "".join(row.split("|")[1] for row in table.splitlines()))
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(
        command, cwd=FOLDER, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert sorted(listed) == sorted({f"{name.split('/')[0]}/" if "/" in name else name for name in found})


def commands() -> Iterator[list[str]]:
    for text in re.findall(r"`abe-router ([^`]+)`", PAGE.read_text()):
        yield shlex.split(text)
    for line in SHELL["compose"].splitlines():
        _, _, command = line.partition(" abe-router ")
        if command:
            yield shlex.split(command)


@pytest.mark.parametrize("arguments", list(commands()), ids=shlex.join)
def test_command_of_the_page_has_valid_arguments(arguments):
    context = root.make_context("abe-router", arguments)
    command = root.get_command(context, arguments[0])
    assert command is not None
    command.make_context(arguments[0], arguments[1:], parent=context)


def test_page_names_only_known_environment_variables():
    assert set(re.findall(r"ABE_ROUTER_\w+", PAGE.read_text())) <= environment_variables()


def test_commands_of_compose_name_a_service_of_the_file():
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    up, *others = SHELL["compose"].splitlines()
    assert up.startswith("docker compose up ")
    assert {line.split()[3] for line in others} <= services.keys()


def test_secret_of_kubernetes_has_the_keys_that_the_manifests_read():
    (command,) = [line for line in SHELL["kubernetes"].splitlines() if "create secret" in line]
    given = [word.partition("=")[2].split("=")[0] for word in shlex.split(command) if "--from-" in word]
    read = set()
    for path in (FOLDER / "kubernetes").iterdir():
        text = path.read_text()
        read |= set(re.findall(r"\{name: abe-router, key: ([\w-]+)\}", text))
        read |= set(re.findall(r"\{key: ([\w-]+), path:", text))
        read |= set(re.findall(r"parameter: token, name: abe-router, key: ([\w-]+)", text))
    assert set(given) == read


def test_files_that_kubectl_applies_exist():
    for text in SHELL.values():
        for name in re.findall(r"--filename (\S+)", text):
            assert (FOLDER / name).is_file() or f"> {name}\n" in text
    assert (FOLDER / "kustomization.yaml").is_file()
    applied = set(re.findall(r"kubernetes/[\w.]+", (FOLDER / "kustomization.yaml").read_text()))
    applied |= set(re.findall(r"kubernetes/[\w.]+", SHELL["kubernetes operators"]))
    assert applied == {f"kubernetes/{path.name}" for path in (FOLDER / "kubernetes").iterdir()}


async def test_alerts_become_a_prometheus_rule(tmp_path):
    alerts = (FOLDER / "alerts.yaml").read_bytes()
    (tmp_path / "alerts.yaml").write_bytes(alerts)
    kubectl = tmp_path / "kubectl"
    kubectl.write_text("#!/bin/sh\n")
    kubectl.chmod(0o755)
    await run_block("alerts", tmp_path)
    rule = yaml.safe_load((tmp_path / "rules.yaml").read_text())
    assert (rule["apiVersion"], rule["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert rule["spec"] == yaml.safe_load(alerts)


async def test_tokens_that_the_page_makes_are_long_and_in_a_folder_of_their_owner(tmp_path):
    await run_block("tokens", tmp_path)
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert made.keys() == {"viewer", "operator"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "secrets").iterdir()} == {0o644}
    assert len(set(made.values())) == 2
    # KEDA sends the value as it is, so it must not end with a newline.
    assert all(re.fullmatch(r"[\w-]{40,}", token) for token in made.values())


async def run_block(title: str, folder: Path) -> None:
    """Run the commands of a block in a folder, in which there is a routes file for `queue.db`."""
    path = os.pathsep.join([str(Path(sys.executable).parent), str(folder), os.environ["PATH"]])
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-ec",
        SHELL[title],
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
