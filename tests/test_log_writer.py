"""A stream that accepts nothing blocks no logging, and the lines that it accepts keep their order."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from subprocess import PIPE

import pytest

from abe_router.observe import log_writer
from abe_router.observe.log_writer import WriterHandler
from abe_router.observe.logs import JSONFormatter, TextFormatter
from tests.limits import HANG

FAILING = """\
import os, sys

def fail(payload):
    os.write(1, b"handled\\n")
    raise ValueError("x" * 200)

async def close(payload):
    os.write(1, b"handled\\n")
    sys.stderr.close()
"""


@pytest.fixture
def pipe() -> Iterator[tuple[int, WriterHandler]]:
    """Return the end of a pipe that is not read yet, and a handler that writes to the other end."""
    reading, writing = os.pipe()
    with closing(os.fdopen(writing, "w")) as stream:
        handler = WriterHandler(stream)
        handler.setFormatter(logging.Formatter("%(message)s"))
    yield reading, handler
    os.close(handler._fd)
    os.close(reading)


def log(handler: WriterHandler, text: str) -> None:
    handler.handle(logging.LogRecord("x", logging.INFO, __file__, 1, text, (), None))


def read(fd: int, last: str) -> list[str]:
    found = ""
    while not found.endswith(f"{last}\n"):
        found += os.read(fd, 1 << 20).decode()
    return found.splitlines()


def test_lines_keep_their_order_and_those_beyond_the_bound_are_counted(pipe, monkeypatch, control):
    monkeypatch.setattr(log_writer, "MAX_QUEUED", 100_000)
    reading, handler = pipe
    began = time.time()
    for n in range(10_000):
        log(handler, f"line {n:05} {'x' * 50}")
    handler.flush()
    assert control.since(began) < 10
    threading.Timer(0.5, log, (handler, "the end")).start()
    lines = read(reading, "the end")
    numbers = [int(line[5:10]) for line in lines if line.startswith("line ")]
    dropped = [int(line.split()[0]) for line in lines if line.endswith(" dropped")]
    assert numbers == sorted(set(numbers))
    assert len(numbers) < len(numbers) + sum(dropped) == 10_000
    assert (len(numbers) + len(dropped) + 1, lines[-1]) == (len(lines), "the end")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_stderr_that_is_not_read_blocks_neither_handlers_nor_the_exit(tmp_path, log_format):
    with serving(tmp_path, "fail", log_format, 400) as process:
        for _ in range(400):
            assert process.stdout.readline() == "handled\n"
        time.sleep(0.3)
        process.terminate()
        assert process.wait(HANG) == 0
        lines = process.stderr.read().splitlines()
        assert sum("dead letter after" in line for line in lines) > 10


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_handler_that_closes_stderr_harms_nothing(tmp_path, log_format):
    with serving(tmp_path, "close", log_format, 20) as process:
        for _ in range(20):
            assert process.stdout.readline() == "handled\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANG) == 0
        assert "stopped in" in process.stderr.read()


def test_each_format_writes_whole_records(pipe):
    reading, handler = pipe
    for formatter in (TextFormatter(), JSONFormatter()):
        handler.setFormatter(formatter)
        log(handler, "a line")
    handler.flush()
    text, record = os.read(reading, 1 << 16).decode().splitlines()
    assert text.endswith("a line")
    assert json.loads(record)["message"] == "a line"


def serving(folder: Path, name: str, log_format: str, count: int) -> subprocess.Popen[str]:
    (folder / "noisy.py").write_text(FAILING)
    (folder / "routes.yaml").write_text(
        f"backend: sqlite:///{folder}/q.db\nroutes:\n  a.b: {{consumers: {{g: "
        f"{{handler: 'noisy:{name}', retry: {{attempts: 1}}}}}}}}\n"
    )
    command = [sys.executable, "-m", "abe_router"]
    lines = "".join(f"{n}\n" for n in range(count))
    subprocess.run(
        [*command, "publish", "a.b", "--ndjson", "-"],
        cwd=folder,
        input=lines,
        text=True,
        check=True,
        capture_output=True,
    )
    return subprocess.Popen(
        [*command, "serve", "--log-format", log_format], cwd=folder, stdout=PIPE, stderr=PIPE, text=True
    )
