"""`top`, `tap` and `status --watch`, `top` on a real pseudo-terminal."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from abe_router.cli import status, tap, top
from abe_router.errors import BackendUnavailable
from abe_router.messages.message import new_message

from .conftest import Result, Run, on_backend

BILLING, AUDIT = "orders.created/billing", "orders.created/audit"
ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
#: A frame from its beginning to its end.
FRAME = r"(?s)\x1b\[H(.*?)(?=\x1b\[H)"


class Terminal:
    """A command on a pseudo-terminal of its own."""

    def __init__(self, *arguments: str, columns: int = 80) -> None:
        # The other end stays open here, so that its modes can be read after the command has ended.
        self._fd, self._peer = os.openpty()
        self.resize(columns)
        self.modes = termios.tcgetattr(self._peer)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "abe_router", *arguments],
            stdin=self._peer,
            stdout=self._peer,
            stderr=self._peer,
            env={**os.environ, "TERM": "xterm", "NO_COLOR": "1"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self.seen = ""

    def resize(self, columns: int, lines: int = 24) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        self.seen = ""
        os.write(self._fd, keys.encode())

    def wait_for(self, pattern: str) -> str:
        """Return what was written since the last key, once a pattern is in it."""
        until = time.monotonic() + 30
        while not re.search(pattern, self.seen):
            assert time.monotonic() < until, f"{pattern!r} is not in {self.seen!r}"
            self._read(0.1)
        return self.seen

    def frame(self, fits: Callable[[list[str]], bool]) -> list[str]:
        """Return the lines of the first complete frame since the last key that fits."""
        until, read = time.monotonic() + 30, 0
        while True:
            for text in re.findall(FRAME, self.seen)[read:]:
                read += 1
                plain = re.sub(r"\x1b\[[\d;]*m", "", text)
                lines = [line.rstrip() for line in re.split("[\r\n]+", plain) if line.strip()]
                if fits(lines):
                    return lines
            assert time.monotonic() < until, self.seen
            self._read(0.1)

    def exit_code(self) -> int:
        """Return the exit code; what the command still writes is kept."""
        until = time.monotonic() + 30
        while self.process.poll() is None:
            assert time.monotonic() < until
            self._read(0.02)
        while self._read(0):
            pass
        return self.process.returncode

    def _read(self, seconds: float) -> bool:
        """Read what the command writes, for some time at most; return whether there was something."""
        if not select.select([self._fd], [], [], seconds)[0]:
            return False
        self.seen += os.read(self._fd, 65_536).decode()
        return True

    @property
    def is_restored(self) -> bool:
        """Whether its modes are those of the beginning, and the first screen is shown."""
        return termios.tcgetattr(self._peer) == self.modes and self.seen.rfind(LEAVE) > self.seen.rfind(ENTER)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._peer)
        os.close(self._fd)


@pytest.fixture
def terminal(shop: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_terminal(*arguments: str, **options: int) -> Terminal:
        opened.append(Terminal(*arguments, **options))
        return opened[-1]

    yield open_terminal
    for each in opened:
        each.close()


def fill(*bodies: bytes, key: str = "orders.created", group: str = "billing") -> None:
    async def act(backend):
        await (await backend.subscribe(key, group)).close()
        await backend.append([new_message(key, body) for body in bodies])

    on_backend(act)


def test_top_obeys_its_keys_and_restores_the_terminal(terminal: Callable[..., Terminal]) -> None:
    fill(b"1", b"2")
    shown = terminal("top", "--every", "0.2")
    _, headings, *rows = shown.frame(lambda lines: any(BILLING[-8:] in line for line in lines))
    assert headings.split()[:4] == ["route", "in/s", "done/s", "wait"]
    assert rows[0].startswith("orders.#/trail")
    shown.press("4")
    _, _, first, *_ = shown.frame(lambda lines: "billing" in lines[2])
    assert first.split()[3] == "2"
    shown.press("1")
    shown.frame(lambda lines: "trail" in lines[2])
    shown.press("q")
    assert shown.exit_code() == 0
    assert shown.is_restored


def test_top_follows_the_size_and_ends_by_a_signal(terminal: Callable[..., Terminal]) -> None:
    fill(b"1")
    shown = terminal("top", "--every", "60", columns=80)
    shown.wait_for(f"{BILLING[-8:]} ")
    shown.press("")
    shown.resize(120)
    shown.wait_for(r"orders\.created/billing +")
    shown.press("\x1a")  # Ctrl-Z, which would leave the screen as it is
    shown.process.send_signal(signal.SIGTERM)
    assert shown.exit_code() == 128 + signal.SIGTERM
    assert shown.is_restored, (shown.seen[-200:], termios.tcgetattr(shown._peer), shown.modes)


def test_top_without_a_terminal_prints_one_table(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top, "_ONCE", 0.25)
    fill(b"1", b"2", b"3")
    heading, *rows = run("top").out.splitlines()
    assert heading.split() == [
        *("route", "in/s", "done/s", "wait", "oldest", "run", "p50", "p99", "retr/s", "dead", "err/s")
    ]
    assert [row.split()[:5] for row in rows if row.startswith(BILLING)] == [[BILLING, "0", "0", "3", "0s"]]
    found = {route["route"]: route for route in run("top", "--json").json["routes"]}
    assert (found[BILLING]["waiting"], found[AUDIT]["waiting"]) == (3, None)


def test_tap_shows_messages_from_the_earliest(run: Run) -> None:
    on_backend(
        lambda backend: backend.append([new_message("orders.created", b'{"n": %d}' % n) for n in (1, 2, 3)])
    )
    result = run("tap", "orders.#", "--start", "earliest", "--limit", "2")
    assert (result.code, result.err) == (0, "2 messages shown\n")
    assert [line.split()[1] for line in result.out.splitlines()] == ["orders.created"] * 2
    assert [line.split()[-1] for line in result.out.splitlines()] == ['{"n":1}', '{"n":2}']
    lines = run(
        "tap", "#", "--start", "earliest", "--where", "/n=2", "--for", "200ms", "--json"
    ).out.splitlines()
    assert [json.loads(line)["payload"] for line in lines] == [{"n": 2}]


def test_tap_masks_what_a_schema_calls_sensitive(run: Run, shop: Path) -> None:
    schema = {"properties": {"card": {"x-sensitive": True}}}
    (shop / "schemas" / "order.json").write_text(json.dumps(schema))
    fill(b'{"card": "4711", "n": 1}')
    for options in ((), ("--json",), ("--group", "billing")):
        out = run("tap", "orders.created", "--start", "earliest", "--limit", "1", *options).out
        assert '{"card":"(masked)","n":1}' in out
        assert "4711" not in out
    (shop / "routes.yaml").unlink()
    arguments = ("--backend", "sqlite:///shop.db", "--start", "earliest", "--limit", "1")
    out = run("tap", "orders.created", *arguments).out
    assert out.rstrip().endswith("(masked)")
    assert '"n"' not in out


def test_tap_of_a_group_shows_the_state_of_each_message(run: Run) -> None:
    fill(b"1\x1b", b"2")
    out = run("tap", "orders.created", "--group", "billing", "--start", "earliest", "--limit", "2").out
    assert "ready, delivered 0 times  1\\x1b\n" in out  # no JSON, under a key whose schema marks nothing
    assert "ready, delivered 0 times  2" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("orders..x",), "`orders..x` is not a key or a pattern"),
        (("#", "--where", "total=5"), "`total` is not a JSON pointer"),
        (("#", "--where", "/total"), "`/total` is not POINTER=JSON"),
        (("#", "--for", "soon"), "'--for'"),
        (("#", "--backend", "memory://"), "lives in one process"),
    ],
)
def test_tap_refuses_faulty_arguments(run: Run, arguments: tuple[str, ...], said: str) -> None:
    fill(b"1")
    result = run("tap", *arguments)
    assert result.code in (1, 2, 78)
    assert said in result.err


def test_tap_counts_what_it_left_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from abe_router.operations.tail import Tailed

    async def tail(*_, **options):
        yield Tailed("a", "1", 0.0, "c", payload=1, omitted=1_200)
        yield Tailed("a", "2", 0.0, "c", payload="text", skipped=True)

    monkeypatch.setattr(tap, "tail", tail)
    fill(b"1")
    result = run("tap", "#")
    assert result.err == "2 messages shown, 1,200 left out, and others were not read: there were too many\n"
    assert result.out.splitlines()[1].endswith("a  2  text")


def test_interrupted_tap_still_says_what_it_showed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def tail(*_, **options):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(tap, "tail", tail)
    fill(b"1")
    result = run("tap", "#")
    assert (result.code, result.err) == (130, "0 messages shown\n")


def watched(run: Run, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[Result, list[float]]:
    """Run `status --watch` for three rounds; return its result and its pauses."""
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt
        if len(pauses) == 1:
            fill(b"1")

    monkeypatch.setattr(status.time, "sleep", sleep)
    return run("status", *arguments), pauses


def test_status_watch_shows_every_change(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fill()
    result, pauses = watched(run, monkeypatch, "--watch")
    rows = [line.split()[1] for line in result.out.splitlines() if line.startswith(BILLING)]
    assert (result.code, rows, pauses) == (130, ["0", "1", "1"], [2.0] * 3)
    assert "\x1b" not in result.out


def test_status_watch_prints_json_lines_and_outlasts_an_outage(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill()
    read, calls = status._read, []

    async def sometimes(table, prefix):
        calls.append(1)
        if len(calls) == 2:
            raise BackendUnavailable("redis://me:secret@host is away")
        return await read(table, prefix)

    monkeypatch.setattr(status, "_read", sometimes)
    result, pauses = watched(run, monkeypatch, "--watch", "5", "--json")
    assert pauses == [5.0] * 3
    found = [{r["route"]: r["ready"] for r in json.loads(line)["routes"]} for line in result.out.splitlines()]
    assert [each[BILLING] for each in found] == [0, 1]
    assert result.err == "error: redis://***@host is away\n"


def test_status_watch_and_here_exclude_each_other(run: Run) -> None:
    assert run("status", "--watch", "1", "--here").code == 2
