"""What other programs do to the three files of a SQLite backend in use: accepted is handled, or refused."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

#: The file, its write-ahead log, and the index of the log.
FILE, LOG, INDEX = "", "-wal", "-shm"
#: How many messages are published before the damage, and after it.
BEFORE, AFTER = 30, 40
#: Consumes until it is killed, and prints each message.
WORKER = """
import asyncio, sys
from pathlib import Path
from abe_router.backend import ACKED
from abe_router.backends.sqlite import SQLiteBackend, file
from abe_router.errors import BackendError

file.GRACE = 0.5

async def main(path):
    async with SQLiteBackend(path) as backend:
        handle = await backend.subscribe("orders.created", "g", lease=1.0)
        print("ready", flush=True)
        while True:
            try:
                for delivery in await handle.fetch(5, 1.0):
                    print(delivery.message.body.decode(), flush=True)
                    await handle.settle([(delivery, ACKED)])
            except BackendError as error:
                print(error, file=sys.stderr, flush=True)
                await asyncio.sleep(0.02)

asyncio.run(main(Path(sys.argv[1])))
"""
#: Publishes numbers, most with one backend, each fourth with one of its own, and prints what is accepted. It
#: reads a line where the file is damaged, and ends when it has read another one.
PUBLISHER = """
import asyncio, sys
from pathlib import Path
from abe_router.backends.sqlite import SQLiteBackend, file
from abe_router.errors import BackendError

file.GRACE = 0.5

async def publish(backend, n):
    try:
        await backend.publish("orders.created", n)
        print(n, flush=True)
    except BackendError as error:
        print(n, error, file=sys.stderr, flush=True)
        await asyncio.sleep(0.02)

async def main(path, before, after):
    async with SQLiteBackend(path) as lasting:
        for n in range(before + after):
            if n == before:
                print("before", flush=True)
                sys.stdin.readline()
            if n % 4:
                await publish(lasting, n)
            else:
                other = SQLiteBackend(path)
                await publish(other, n)
                await other.close()
    print("after", flush=True)

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
"""


class Program:
    """A program that uses the file in a process of its own, and what it has printed."""

    def __init__(self, path: Path, output: Path, program: str, *words: int) -> None:
        self._output = output
        with output.open("wb") as out, output.with_suffix(".err").open("wb") as errors:
            command = [sys.executable, "-c", program, str(path), *map(str, words)]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=errors)

    @property
    def words(self) -> list[str]:
        """What it has printed."""
        return self._output.read_text().split()

    @property
    def numbers(self) -> set[int]:
        """The messages among them."""
        return {int(word) for word in self.words if word.isdigit()}

    def wait_for(self, condition: Callable[[], bool]) -> bool:
        """Wait for the condition, or the end of the process; return whether the condition is true."""
        until = time.monotonic() + 30
        while not condition() and self.process.poll() is None:
            assert time.monotonic() < until, self._output.with_suffix(".err").read_text()
            time.sleep(0.005)
        return condition()

    def kill(self) -> None:
        """End it, and wait for its end."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start(path: Path, tmp_path: Path) -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def run(program: str, *words: int) -> Program:
        started.append(Program(path, tmp_path / f"{len(started)}.out", program, *words))
        return started[-1]

    yield run
    for each in started:
        each.kill()


def remove(path: Path, copy: Path) -> None:
    path.unlink()


def replace(path: Path, copy: Path) -> None:
    copy.rename(path)


def cut(path: Path, copy: Path) -> None:
    os.truncate(path, 0)


ROWS = [
    (remove, (LOG,)),
    (remove, (INDEX,)),
    (remove, (LOG, INDEX)),
    (remove, (FILE, LOG, INDEX)),
    (replace, (LOG, INDEX)),
    (replace, (FILE,)),
    (cut, (LOG,)),
    (cut, (INDEX,)),
]
SETS = [(LOG,), (INDEX,), (LOG, INDEX), (FILE,), (FILE, LOG), (FILE, INDEX), (FILE, LOG, INDEX)]
OTHERS = [(act, each) for act in (remove, replace, cut) for each in SETS if (act, each) not in ROWS]


@pytest.mark.parametrize(
    ("damage", "suffixes"),
    [*ROWS, *(pytest.param(*row, marks=pytest.mark.long) for row in OTHERS)],
    ids=lambda value: value.__name__ if callable(value) else "+".join(each or "file" for each in value),
)
def test_what_is_accepted_is_handled_or_refused(path, tmp_path, start, damage, suffixes):
    worker = start(WORKER)
    worker.wait_for(lambda: "ready" in worker.words)
    publisher = start(PUBLISHER, BEFORE, AFTER)
    publisher.wait_for(lambda: len(publisher.words) > BEFORE // 2)
    for suffix in (FILE, LOG, INDEX):
        shutil.copyfile(f"{path}{suffix}", tmp_path / f"copy{suffix}")
    publisher.wait_for(lambda: "before" in publisher.words)
    for suffix in suffixes:
        damage(Path(f"{path}{suffix}"), tmp_path / f"copy{suffix}")
    publisher.process.stdin.write(b"\n")
    publisher.process.stdin.flush()
    # SQLite maps the index into memory, so the system ends a process whose index is cut.
    publisher.wait_for(lambda: "after" in publisher.words)
    publisher.kill()
    worker.kill()
    again = start(WORKER)  # as a supervisor or an operator starts it

    accepted = publisher.numbers
    # What the bytes that are gone held is gone with them.
    is_kept = FILE not in suffixes and not (damage is cut and LOG in suffixes)
    wanted = accepted if is_kept else {number for number in accepted if number >= BEFORE}
    if is_kept:
        assert len(accepted) >= BEFORE
    if is_kept and damage is not cut:
        assert len(accepted) == BEFORE + AFTER  # an opening waits until the others let go of the log
    assert again.wait_for(lambda: wanted <= worker.numbers | again.numbers)
    again.kill()
    with closing(sqlite3.connect(path)) as opened:
        assert opened.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        stored = {int(body) for (body,) in opened.execute("SELECT body FROM messages")} if wanted else set()
    assert wanted <= stored
