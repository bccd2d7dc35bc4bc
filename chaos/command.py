"""Runs commands of `abe-router` in processes that are forked from a process with all imports done.

Each row runs `status` and `dead list`. Such a command spends most of its time on imports, and processor time
limits how many rows run at the same time.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import NamedTuple

from chaos.process import FORKED


class Ended(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


async def run(arguments: Sequence[str]) -> Ended:
    """Run `abe-router` with arguments in a process of its own."""
    receiver, sender = FORKED.Pipe(duplex=False)
    process = FORKED.Process(target=_send, args=(arguments, sender), daemon=True)
    # All processes start in one thread: each start reads the exit codes of those that have ended. When two
    # threads read one at the same time, the second finds nothing, and takes it for 255.
    process.start()
    sender.close()
    return await asyncio.to_thread(_result, process, receiver)


def _result(process: BaseProcess, receiver: Connection) -> Ended:
    """Wait for the process, and return what it sent."""
    try:
        return Ended(*receiver.recv())
    except EOFError:
        process.join()
        return Ended(process.exitcode or 1, "", "the process ended without a result")
    finally:
        process.join()
        receiver.close()


def _send(arguments: Sequence[str], sender: Connection) -> None:
    from abe_router.__main__ import main

    out, err = io.StringIO(), io.StringIO()
    code = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main(list(arguments))
        except SystemExit as end:
            code = int(end.code or 0)
    sender.send((code, out.getvalue(), err.getvalue()))
