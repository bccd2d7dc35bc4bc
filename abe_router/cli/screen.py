"""The whole terminal as a screen, with its keys one by one; the terminal is restored however it is left."""

from __future__ import annotations

import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from typing import Any, Self

#: The other screen of the terminal, without a cursor and without wrapping long lines; and back.
_ENTER, _LEAVE = "\033[?1049h\033[?25l\033[?7l", "\033[?7h\033[?25h\033[?1049l"
_HOME, _TO_LINE_END, _TO_SCREEN_END = "\033[H", "\033[K", "\033[J"
#: What keys send that have no character, without the escape character in front.
_SEQUENCES = {
    "[A": "up",
    "OA": "up",
    "[B": "down",
    "OB": "down",
    "[5~": "page up",
    "[6~": "page down",
    "[H": "home",
    "[F": "end",
}
_NAMED = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\b": "backspace", "\x1b": "escape"}


class Screen:
    """Takes the terminal of stdin and stdout inside `with`; keys arrive one by one and are not shown.

    Ctrl-C and Ctrl-Z stay signals.
    """

    def __init__(self) -> None:
        self._input, self._output = sys.stdin.fileno(), sys.stdout.fileno()
        self._saved: list[Any] | None = None

    @staticmethod
    def available() -> bool:
        """Return whether both stdin and stdout are a terminal that understands escape codes."""
        return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb")

    @property
    def fileno(self) -> int:
        """The file descriptor that keys are read from."""
        return self._input

    @property
    def size(self) -> os.terminal_size:
        """Its columns and lines now."""
        return os.get_terminal_size(self._output)

    def __enter__(self) -> Self:
        self._saved = termios.tcgetattr(self._input)
        tty.setcbreak(self._input, termios.TCSANOW)
        self._write(_ENTER)
        return self

    def __exit__(self, *_: object) -> None:
        saved, self._saved = self._saved, None
        if saved is not None:
            try:
                self._write(_LEAVE)
            finally:
                termios.tcsetattr(self._input, termios.TCSANOW, saved)

    def draw(self, lines: Sequence[str]) -> None:
        """Show lines, each at most as wide as the screen; what is below them is cleared."""
        self._write(_HOME + f"{_TO_LINE_END}\r\n".join(lines) + _TO_LINE_END + _TO_SCREEN_END)

    def read_keys(self) -> Iterator[str] | None:
        """Return the keys that were pressed, None if the terminal is gone. A character is a key by itself."""
        try:
            data = os.read(self._input, 1024)
        except OSError:
            return None
        return _keys(data.decode(errors="replace")) if data else None

    def suspend(self) -> None:
        """Restore the terminal, stop the process as Ctrl-Z does, and take the terminal when it continues."""
        self.__exit__()
        os.kill(os.getpid(), signal.SIGSTOP)
        self.__enter__()

    def _write(self, text: str) -> None:
        left = text.encode(errors="backslashreplace")
        while left:
            left = left[os.write(self._output, left) :]


def _keys(text: str) -> Iterator[str]:
    """Yield the keys of what a terminal has sent."""
    at = 0
    while at < len(text):
        rest = text[at + 1 :]
        if text[at] == "\x1b" and rest[:1] in ("[", "O"):
            end = next((n for n, c in enumerate(rest[1:], 2) if "@" <= c <= "~"), len(rest))
            if found := _SEQUENCES.get(rest[:end]):
                yield found
            at += 1 + end
        else:
            yield _NAMED.get(text[at], text[at])
            at += 1
