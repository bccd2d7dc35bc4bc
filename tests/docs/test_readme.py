"""The README works word for word in a copy of the worked example."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from abe_router.config.building.loader import Loader

from .blocks import blocks
from .transcript import follow

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the worked example and no other configuration."""
    for variable in ("ABE_ROUTER_BACKEND", "ABE_ROUTER_CONFIG"):
        monkeypatch.delenv(variable, raising=False)
    for name in ("routes.yaml", "schemas", "examples"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_commands_of_the_example_print_what_its_readme_shows(example: Path) -> None:
    follow(README, example)


def test_routes_files_of_the_example_have_no_faults(example: Path) -> None:
    for number, block in enumerate(blocks(README, "yaml")):
        file = example / f"{number}.yaml"
        file.write_text(block.text)
        assert Loader(file).load().warnings == (), block.place


def test_handlers_of_the_example_can_be_imported(example: Path, monkeypatch) -> None:
    (block,) = blocks(README, "python")
    (example / "handlers_of_readme.py").write_text(block.text)
    file = example / "with_python.yaml"
    file.write_text("routes: {orders.created: {consumers: {billing: 'handlers_of_readme:charge'}}}\n")
    assert len(Loader(file).load().routes) == 1


def test_readme_steps_add_a_consumer_to_a_running_router(example: Path) -> None:
    (added,) = blocks(README, "text")
    router = Path(sys.executable).with_name("abe-router")
    subprocess.run(
        [router, "publish", "orders.created", '{"id": 7, "total": 250}'],
        cwd=example,
        check=True,
        capture_output=True,
    )
    with subprocess.Popen(
        [router, "serve", "--log-format", "text"],
        cwd=example,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as serving:
        assert serving.stdout is not None
        seen = ""
        while "running 3 routes" not in seen:
            seen += serving.stdout.readline()
        routes = example / "routes.yaml"
        head, consumers, rest = routes.read_text().partition("    consumers:\n")
        began = time.monotonic()
        routes.write_text(f"{head}{consumers}{added.text}{rest}")
        while "added orders.created/history" not in seen:
            seen += serving.stdout.readline()
        assert time.monotonic() - began < 2
        while seen.count("audit: order 7 is large: 250") < 2:  # once for `audit`, once for `history`
            seen += serving.stdout.readline()
        serving.send_signal(signal.SIGTERM)
        serving.communicate(timeout=20)
        assert serving.returncode == 0


def test_demo_command_runs(example: Path) -> None:
    router = Path(sys.executable).with_name("abe-router")
    done = subprocess.run(
        ["/bin/sh", "examples/demo.sh", router], cwd=example, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "billing: charged 120 for order 1" in done.stdout
    assert "refused: nothing entered the queue" in done.stdout
