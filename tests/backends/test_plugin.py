"""`pytest --abe-backend URL`, run in a folder of its own, as the author of a provider runs it."""

from __future__ import annotations

import subprocess
import sys

PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]


def pytest_in(folder, *arguments):
    run = subprocess.run([*PYTEST, *arguments], cwd=folder, capture_output=True, text=True, timeout=60)
    return run.returncode, run.stdout + run.stderr


def test_suite_runs_for_a_url(tmp_path):
    (tmp_path / "test_own.py").write_text("def test_own():\n    raise AssertionError('not asked for')\n")
    url = f"sqlite:///{tmp_path}/log.db"
    code, output = pytest_in(tmp_path, "--abe-backend", url, "-k", "settling_twice")
    assert code == 0, output
    assert "passed" in output
    assert "not asked for" not in output


def test_failing_assertion_shows_its_values(tmp_path):
    (tmp_path / "test_mine.py").write_text(
        "from abe_router.backends.memory import MemoryBackend\n"
        "from abe_router.conformance import BackendConformance\n"
        "class Mine(MemoryBackend):\n"
        "    async def purge(self, pattern, group, ids):\n"
        "        return 7\n"
        "class TestMine(BackendConformance):\n"
        "    def make_backend(self, prefix):\n"
        "        return Mine()\n"
    )
    code, output = pytest_in(tmp_path, "-k", "test_purged_dead_letters_are_gone")
    assert code == 1, output
    assert "assert 7 == 4" in output


def test_without_the_option_only_own_tests_run(tmp_path):
    (tmp_path / "test_own.py").write_text("def test_own():\n    pass\n")
    code, output = pytest_in(tmp_path)
    assert (code, "1 passed" in output) == (0, True), output


def test_plugin_imports_neither_backends_nor_the_suite():
    heavy = [
        "abe_router.backend",
        "abe_router.backends",
        "abe_router.conformance",
        "redis",
        "pydantic",
    ]
    code = f"import sys, abe_router.testing.plugin; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
