"""docs/http.md: its commands print what the page shows, and its program runs."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from .transcript import follow

PAGE = Path(__file__).parents[2] / "docs" / "http.md"
#: The ports of the page. The test takes free ones, since another run of the tests may use them.
PORTS = ("28470", "28471", "28472")


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in sockets]


@pytest.mark.timeout(240)
def test_commands_print_what_the_page_shows(tmp_path: Path) -> None:
    text = PAGE.read_text()
    for port, free in zip(PORTS, free_ports(len(PORTS)), strict=True):
        assert port in text
        text = text.replace(port, str(free))
    (tmp_path / PAGE.name).write_text(text)
    folder = tmp_path / "folder"
    folder.mkdir()
    try:
        follow(tmp_path / PAGE.name, folder)
    finally:
        for name in ("router.pid", "dashboard.pid"):
            with suppress(OSError):
                os.kill(int((folder / name).read_text()), signal.SIGKILL)
