"""Follows a page: writes its files, runs its commands, and compares their output.

A block with a title is a file. A `console` block is a transcript. The shell runs each line that begins with
`$ ` in the folder of the files. The lines that follow are the expected output on both streams, where `...`
stands for any text. A `^C` at the end interrupts the command after the other output, and the command must end
cleanly. Every other block of Python is a program, and must end without an error.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from .blocks import Block, blocks

#: Longest time for a command, in seconds.
TIMEOUT = 90.0
#: Runs programs in sequence in one process, because only one process shares the memory backend.
TOGETHER = "import runpy, sys; [runpy.run_path(path, run_name='__main__') for path in sys.argv[1:]]"


@dataclass(frozen=True)
class Command:
    """A command of a transcript with its expected output; `place` is the page and line of the command."""

    text: str
    expected: str
    interrupted: bool
    place: str


def commands(block: Block) -> list[Command]:
    """Return the commands of a transcript."""
    found: list[Command] = []
    text, printed, begin = "", [""], 0
    for number, line in enumerate([*block.text.splitlines(), "$ "], block.line):
        if not line.startswith("$ "):
            printed.append(line)
            continue
        if text:
            interrupted = printed[-1] == "^C"
            expected = "".join(f"{entry}\n" for entry in printed[1 : -1 if interrupted else None])
            found.append(Command(text, expected, interrupted, f"{block.page}:{begin}"))
        text, printed, begin = line[2:], [""], number
    return found


def joined(listed: list[Command]) -> list[Command]:
    """Return the commands, with consecutive `python A`, `python B` joined into one process."""
    found: list[Command] = []
    for command in listed:
        if found and found[-1].text.startswith("python ") and command.text.startswith("python "):
            before = found.pop()
            text = f"{before.text} {command.text.removeprefix('python ')}"
            command = Command(text, before.expected + command.expected, command.interrupted, before.place)
        found.append(command)
    programs = re.compile(r"python (\w+\.py(?: \w+\.py)*)")
    return [
        Command(f"python -c {shlex.quote(TOGETHER)} {match[1]}", c.expected, c.interrupted, c.place)
        if (match := programs.fullmatch(c.text))
        else c
        for c in found
    ]


def follow(page: Path, folder: Path, *, one_process: bool = False, **environment: str) -> None:
    """Follow a page in an empty folder, with additional environment variables.

    With `one_process`, consecutive programs of a block run in one process.
    """
    variables = shell_variables(**environment)
    for block in blocks(page):
        follow_block(block, folder, variables, one_process=one_process)


def shell_variables(**more: str) -> dict[str, str]:
    """Return the environment of the commands of a page."""
    bin_folder = str(Path(sys.executable).parent)
    return {
        **{name: value for name, value in os.environ.items() if name not in ("QUEUE_BACKEND", "REDIS_URL")},
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "200",
        **more,
    }


def follow_block(block: Block, folder: Path, variables: dict[str, str], *, one_process: bool = False) -> None:
    """Write the file of a block, or run its commands or its program."""
    if block.title:
        file = folder / block.title
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text)
        if block.language == "python":
            compile(block.text, f"{block.page}, {block.title}", "exec")
    elif block.language == "console":
        listed = commands(block)
        assert listed, f"{block.place}: no command"
        for command in joined(listed) if one_process else listed:
            _run(command, folder, variables)
    elif block.language == "python":
        program = "\n" * (block.line - 1) + block.text
        _run(Command(f"python -c {shlex.quote(program)}", "...", False, block.place), folder, variables)


def _run(command: Command, folder: Path, environment: dict[str, str]) -> None:
    # Without `exec`, only the shell would receive the interrupt.
    text = f"exec env {command.text}" if command.interrupted else command.text
    with subprocess.Popen(
        ["/bin/sh", "-c", text],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        printed, deadline = b"", time.monotonic() + TIMEOUT
        interrupted = False
        while True:
            ended = process.poll() is not None
            printed += process.stdout.read() or b""
            if ended:
                break
            if command.interrupted and not interrupted and matches(command.expected, printed.decode()):
                process.send_signal(signal.SIGINT)
                interrupted = True
            if time.monotonic() > deadline:
                process.kill()
                why = f"it takes longer than {TIMEOUT:g} s and has printed:\n{printed.decode()}"
                raise AssertionError(f"{command.place}: $ {command.text}\n{why}")
            time.sleep(0.01)
    output = printed.decode()
    assert matches(command.expected, output), (
        f"{command.place}: $ {command.text}\nexpected:\n{command.expected}\nprinted:\n{output}"
    )
    fails = "error: " in command.expected
    assert (process.returncode != 0) is fails, f"{command.place}: exit code {process.returncode}\n{output}"


def matches(expected: str, printed: str) -> bool:
    """Say whether the output is as expected; `...` stands for any text, also for none.

    In a table, a wide value takes the place of spaces before it.
    """
    expected = re.sub(r" {2,}\.\.\.", " ...", expected)
    parts = (re.escape(part) for part in expected.replace("...\n", "...").split("..."))
    return re.fullmatch(r"(?s:.*?)".join(parts), printed) is not None
