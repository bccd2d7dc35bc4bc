"""The position of a JSON pointer, in the text of a JSON file or below a node of the routes file."""

from __future__ import annotations

import json
import re
from bisect import bisect_right

from abe_router.config.reading.faults import Span
from abe_router.config.reading.node import YamlNode
from abe_router.messages.pointer import escape, is_pointer, parse
from abe_router.text import LINE_END

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')


def suggest_pointer(text: str) -> str:
    """Return the pointer that a malformed one probably means, or an empty string."""
    pointer = "/" + text.strip("$./").replace(".", "/")
    return pointer if pointer != "/" and is_pointer(pointer) else ""


def below(node: YamlNode, pointer: str) -> list[str | int]:
    """Return the pointer as the path below a node, as far as it exists."""
    path: list[str | int] = []
    for step in parse(pointer):
        key: str | int = int(step) if isinstance(node.value, list) and step.isdigit() else step
        if key not in node.parts:
            break
        path.append(key)
        node = node.parts[key]
    return path


class JsonPositions:
    """The positions of all values in a valid JSON text, found in one pass."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(end.end() for end in LINE_END.finditer(text))]
        #: The key and the first token of each value, by its pointer.
        self._found: dict[str, tuple[re.Match[str] | None, re.Match[str]]] = {}
        pointers, counts = [""], [0]  # of the open containers; the number of the next item, if it is a list
        key: re.Match[str] | None = None
        tokens = list(_TOKEN.finditer(text))
        for number, token in enumerate(tokens):
            if token[0] in {",", ":"}:
                key = None if token[0] == "," else key
            elif token[0] in {"}", "]"}:
                pointers.pop()
                counts.pop()
                key = None
            elif key is None and number + 1 < len(tokens) and tokens[number + 1][0] == ":":
                key = token
            else:
                pointer = pointers[-1]
                if self._found:
                    step = escape(json.loads(key[0])) if key is not None else counts[-1]
                    pointer = f"{pointer}/{step}"
                    counts[-1] += 1
                self._found[pointer] = key, token
                if token[0] in {"{", "["}:
                    pointers.append(pointer)
                    counts.append(0)
                    key = None

    def span(self, pointer: str, *, of_key: bool = False) -> Span:
        """Return the span of a value: that of a scalar itself, else that of its key. `of_key` wants the key.

        If the pointer has no target, return the start of the file.
        """
        if pointer not in self._found:
            return Span()
        key, value = self._found[pointer]
        token = key if key is not None and (of_key or value[0] in {"{", "["}) else value
        line = bisect_right(self._starts, token.start())
        return Span(line, token.start() - self._starts[line - 1] + 1, len(token[0]))
