"""The README works word for word: its tour after `abe-router init` in an empty folder, and `make demo`."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from abe_router.cli.root import run
from abe_router.config.building.loader import Loader
from chaos.control import Control
from tests.limits import HANG

from .blocks import blocks
from .transcript import follow

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("ABE_ROUTER_BACKEND", "ABE_ROUTER_CONFIG"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Path]:
    """Return the folder that the first command of the tour makes."""
    # Not the command itself: click keeps what its help has without the group, for the tests after this one.
    assert run(["init", str(tmp_path / "shop")]) == 0
    yield tmp_path / "shop"
    sys.modules.pop("handlers", None)


def test_commands_of_the_tour_print_what_the_readme_shows(shop: Path) -> None:
    follow(README, shop)


def test_routes_files_of_the_readme_have_no_faults(shop: Path) -> None:
    for number, block in enumerate(blocks(README, "yaml")):
        file = shop / f"{number}.yaml"
        file.write_text(block.text)
        assert Loader(file).load().warnings == (), block.place


def test_handlers_of_the_readme_can_be_imported(shop: Path) -> None:
    (block,) = blocks(README, "python")
    (shop / "handlers_of_readme.py").write_text(block.text)
    file = shop / "with_python.yaml"
    file.write_text("routes: {orders.created: {consumers: {billing: 'handlers_of_readme:charge'}}}\n")
    assert len(Loader(file).load().routes) == 1


def test_readme_steps_add_a_consumer_to_a_running_router(shop: Path, control: Control) -> None:
    (added,) = blocks(README, "text")
    router = Path(sys.executable).with_name("abe-router")
    subprocess.run(
        [router, "publish", "orders.created", '{"id": 7, "total": 250}'],
        cwd=shop,
        check=True,
        capture_output=True,
    )
    with subprocess.Popen(
        [router, "serve", "--log-format", "text"],
        cwd=shop,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as serving:
        assert serving.stdout is not None
        seen = ""
        while "running 2 routes" not in seen:
            seen += serving.stdout.readline()
        routes = shop / "routes.yaml"
        head, consumers, rest = routes.read_text().partition("    consumers:\n")
        began = time.time()
        routes.write_text(f"{head}{consumers}{added.text}{rest}")
        while "added orders.created/history" not in seen:
            seen += serving.stdout.readline()
        assert control.since(began) < 8
        while seen.count("recorded order 7: 250") < 2:  # once for `audit`, once for `history`
            seen += serving.stdout.readline()
        serving.send_signal(signal.SIGTERM)
        serving.communicate(timeout=HANG)
        assert serving.returncode == 0


def test_demo_command_runs(tmp_path: Path) -> None:
    for name in ("routes.yaml", "schemas", "examples"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    router = Path(sys.executable).with_name("abe-router")
    done = subprocess.run(
        ["/bin/sh", "examples/demo.sh", router], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "billing: charged 120 for order 1" in done.stdout
    assert "refused: nothing entered the queue" in done.stdout
