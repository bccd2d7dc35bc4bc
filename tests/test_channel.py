"""The control channel between a worker process and its supervisor."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from abe_router.diagnostic import Diagnostic, Severity
from abe_router.process.channel import Outdated, Rejected, Running, decode_message, encode_message
from tests.limits import HANG


def test_a_message_keeps_names_that_are_not_utf8():
    path = Path(os.fsdecode(b"/caf\xe9/routes.yaml"))
    diagnostic = Diagnostic(path, 1, 2, "R001", Severity.ERROR, "no `\ud800` here")
    for message in (
        Running(frozenset([path, Path("/x.py")])),
        Rejected((diagnostic,)),
        Outdated("the code", path),
    ):
        line = encode_message(message)
        assert decode_message(line) == message
        assert line.index(b"\n") == len(line) - 1


STUCK = """
import asyncio, sys, time
from abe_router.process.channel import ControlChannel
from abe_router.process.deadline import StopDeadline

async def main(channel):
    channel.on_command(print, begin=StopDeadline(lambda: 0.1, lambda: None).begin)
    print("blocked", flush=True)
    time.sleep(60)

asyncio.run(main(ControlChannel(1, int(sys.argv[1]))))
"""


async def test_a_worker_whose_event_loop_is_blocked_ends_after_its_supervisor():
    ours, its = socket.socketpair()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", STUCK, str(its.fileno())), stdout=PIPE, pass_fds=[its.fileno()]
    )
    its.close()
    assert process.stdout
    assert await process.stdout.readline() == b"blocked\n"
    ours.close()
    async with asyncio.timeout(HANG):
        assert await process.wait() == 1
