"""A command that chaos runs in a forked process."""

from __future__ import annotations

import threading

from chaos import command
from chaos.process import FORKED


async def test_commands_start_in_the_thread_of_the_event_loop(monkeypatch):
    """A start reads the exit codes of other processes, which two threads cannot do at the same time."""
    threads = []
    start = FORKED.Process.start

    def noted(process):
        threads.append(threading.current_thread())
        start(process)

    monkeypatch.setattr(FORKED.Process, "start", noted)
    ended = await command.run(["--version"])
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("abe-router ")
    assert threads == [threading.current_thread()]
