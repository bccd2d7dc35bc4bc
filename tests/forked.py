"""Run tests in forked processes: `pytest -p tests.forked --processes 5`.

All tests are collected once, which takes seconds of processor time, before the processes are forked. One
run has all stages, one after the other. The first has most tests, in as many processes as were asked for.
The second has those marked `heavy`: they disturb others by their load, but not each other. Each file runs in
one process, because its runs start at once. The last has those marked `alone`, two at a time: most of them
wait for a moment and look whether it comes in time, so the machine stays idle enough.

A process has two tests at a time: the one that it runs, and the next one, because pytest keeps the fixtures
that both share. A process without more tests gets half of those of the process that has most. A process that
ends by itself fails its test, and a new process runs its others.
"""

from __future__ import annotations

import os
import pickle
import selectors
import socket
import struct
import sys
import tempfile
import traceback
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest
from _pytest.runner import runtestprotocol

_LENGTH = struct.Struct("!I")
#: What a stage runs in, by mark. None: in as many processes as were asked for.
STAGES = {"": None, "heavy": 4, "alone": 2}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("forked").addoption(
        "--processes", type=int, default=0, metavar="N", help="run tests in N forked processes"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run all tests in processes, if the option asks for it."""
    option = session.config.option
    if not option.processes or option.collectonly or session.testsfailed:
        return None
    for mark, processes in STAGES.items():
        chosen = [index for index, item in enumerate(session.items) if _mark_of(item) == mark]
        if chosen:
            Stage(session, chosen, processes or option.processes, by_file=mark == "heavy").run()
        if session.shouldfail or session.shouldstop:
            raise session.Interrupted(session.shouldfail or session.shouldstop)
    return True


def _mark_of(item: pytest.Item) -> str:
    """Return the mark of the stage that a test belongs to; `alone` has precedence."""
    return next((mark for mark in ("alone", "heavy") if item.get_closest_marker(mark)), "")


def _is_long(item: pytest.Item) -> bool:
    """Say whether a test has a timeout beyond that of the other tests."""
    mark = item.get_closest_marker("timeout")
    return mark is not None and mark.args[0] > 60


class Stage:
    """Tests, given by their indexes, and the processes that run them."""

    def __init__(
        self, session: pytest.Session, chosen: Sequence[int], processes: int, *, by_file: bool
    ) -> None:
        self._session, self._hook = session, session.config.hook
        #: The tests that each process will get, in pieces that stay together.
        self._shares: list[deque[list[int]]] = [deque() for _ in range(processes)]
        self._processes: dict[int, Process] = {}
        self._selector = selectors.DefaultSelector()
        pieces: dict[object, list[int]] = {}
        for index in chosen:
            pieces.setdefault(session.items[index].path if by_file else index, []).append(index)
        is_long = {index for index in chosen if by_file or _is_long(session.items[index])}
        long = [piece for piece in pieces.values() if piece[0] in is_long]
        short = [piece for piece in pieces.values() if piece[0] not in is_long]
        ends = [len(short) * number // processes for number in range(processes + 1)]
        for number, share in enumerate(self._shares):
            share.extend([*long[number::processes], *short[ends[number] : ends[number + 1]]])

    def run(self) -> None:
        """Run all tests; return when all processes have ended."""
        try:
            for number, share in enumerate(self._shares):
                if share:
                    self._start(number, [])
            while self._processes:
                for key, _ in self._selector.select():
                    self._read(key.data)
        finally:
            for process in self._processes.values():
                process.kill()

    def _start(self, number: int, first: Sequence[int]) -> None:
        process = Process(self._session, number, first)
        self._processes[number] = process
        self._selector.register(process.channel, selectors.EVENT_READ, process)
        while len(process.reserved) < 2 and not process.finishing:
            self._give(process)

    def _give(self, process: Process) -> None:
        """Give a process one more test, or say that there is none."""
        following = self._next(process.number)
        process.finishing = following is None
        process.send(following)

    def _next(self, number: int) -> int | None:
        share = self._shares[number]
        if not share and not self._session.shouldstop and not self._session.shouldfail:
            richest = max(self._shares, key=len)
            share.extendleft([richest.pop() for _ in range((len(richest) + 1) // 2)])
        if not share or self._session.shouldstop or self._session.shouldfail:
            return None
        piece = share[0]
        following = piece.pop(0)
        if not piece:
            share.popleft()
        return following

    def _read(self, process: Process) -> None:
        told = process.receive()
        if told is None:
            self._end(process)
            return
        process.reserved.popleft()
        for report in told:
            self._report(report)
        if not process.finishing:
            self._give(process)

    def _report(self, data: dict[str, Any]) -> None:
        report = self._hook.pytest_report_from_serializable(config=self._session.config, data=data)
        self._hook.pytest_runtest_logreport(report=report)
        if report.when == "teardown":
            self._hook.pytest_runtest_logfinish(nodeid=report.nodeid, location=report.location)

    def _end(self, process: Process) -> None:
        """Take leave of a process that has ended; if it has not run its tests, another one does."""
        self._selector.unregister(process.channel)
        del self._processes[process.number]
        code = process.wait()
        if not process.reserved:
            return
        item = self._session.items[process.reserved.popleft()]
        for when in ("call", "teardown"):
            outcome = "failed" if when == "call" else "passed"
            text = f"the process ended with code {code}" if when == "call" else None
            report = pytest.TestReport(item.nodeid, item.location, {}, outcome, text, when)  # type: ignore[arg-type]
            self._hook.pytest_runtest_logreport(report=report)
        self._hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        if process.reserved or self._shares[process.number]:
            self._start(process.number, process.reserved)


class Process:
    """A forked process, as its parent sees it. It runs the first of its `reserved` tests."""

    def __init__(self, session: pytest.Session, number: int, first: Sequence[int]) -> None:
        self.number, self.finishing = number, False
        self.reserved: deque[int] = deque()
        self.channel, other = socket.socketpair()
        self._pid = os.fork()
        if not self._pid:
            self.channel.close()
            _run_tests(session, number, other)
        other.close()
        for index in first:
            self.send(index)

    def send(self, index: int | None) -> None:
        """Give the process a test; None says that it was the last one."""
        if index is not None:
            self.reserved.append(index)
        with suppress(ConnectionError):  # if it has ended, the next read shows it
            _write(self.channel, index)

    def receive(self) -> list[dict[str, Any]] | None:
        """Return the reports of a test; None when the process has ended."""
        return _read(self.channel)

    def wait(self) -> int:
        """Return the exit code."""
        self.channel.close()
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def kill(self) -> None:
        """End the process at once."""
        os.kill(self._pid, 9)
        self.wait()


class Sender:
    """Runs tests in a forked process, and sends the reports of each to the parent."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        hook, config = item.config.hook, item.config
        _write(self._channel, [hook.pytest_report_to_serializable(config=config, report=r) for r in reports])
        return True


def _run_tests(session: pytest.Session, number: int, channel: socket.socket) -> NoReturn:
    """Run the tests that the parent sends, and end this process."""
    code = 1
    try:
        _separate(session.config, number)
        session.config.pluginmanager.register(Sender(channel), "forked-sender")
        index = _read(channel)
        while index is not None:
            following = _read(channel)
            nextitem = None if following is None else session.items[following]
            session.config.hook.pytest_runtest_protocol(item=session.items[index], nextitem=nextitem)
            index = following
        code = 0
    except KeyboardInterrupt:
        pass
    except BaseException:  # noqa: BLE001  this process must not go on as the parent does
        traceback.print_exc()
    finally:
        coverage = sys.modules.get("coverage")
        if coverage is not None and (measured := coverage.Coverage.current()):
            measured.save()
        os._exit(code)


def _separate(config: pytest.Config, number: int) -> None:
    """Give this process what it must not share with its parent: captured output and a temporary folder."""
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    if capture.is_globally_capturing():
        capture.stop_global_capturing()
        capture.start_global_capturing()
        capture.suspend_global_capture()
    factory: Any = config._tmp_path_factory  # type: ignore[attr-defined]
    factory._basetemp = Path(tempfile.mkdtemp(prefix=f"{number}-", dir=factory.getbasetemp()))


def _write(channel: socket.socket, value: object) -> None:
    data = pickle.dumps(value)
    channel.sendall(_LENGTH.pack(len(data)) + data)


def _read(channel: socket.socket) -> Any:
    """Return what the other end has written; None if it has ended."""
    head = _exactly(channel, _LENGTH.size)
    return pickle.loads(_exactly(channel, *_LENGTH.unpack(head))) if head else None


def _exactly(channel: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        try:
            more = channel.recv(count - len(found))
        except ConnectionResetError:
            more = b""
        if not more:
            return b""
        found += more
    return found
