"""The fenced blocks of a page, with their positions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>[\w-]*)(?P<rest>.*)$")
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is that of its first line of text, counted from 1.

    `title` is the name of the file that it shows, empty when it shows none.
    """

    page: Path
    line: int
    language: str
    title: str
    text: str

    @property
    def place(self) -> str:
        """The path and line, in the form that editors parse."""
        return f"{self.page}:{self.line}"


def blocks(page: Path, *languages: str) -> list[Block]:
    """Return the blocks of a page in these languages, or in any language, in order."""
    found: list[Block] = []
    opened: re.Match[str] | None = None
    lines: list[str] = []
    begin = 0
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if opened is None:
            if fence:
                opened, lines, begin = fence, [], number + 1
        elif fence and fence["ticks"] == opened["ticks"] and not fence["language"]:
            title = _TITLE.search(opened["rest"])
            text = "".join(f"{entry}\n" for entry in lines)
            found.append(Block(page, begin, opened["language"], title[1] if title else "", text))
            opened = None
        else:
            lines.append(line.removeprefix(opened["indent"]))
    assert opened is None, f"{page}:{begin}: the block is not closed"
    return [block for block in found if not languages or block.language in languages]
