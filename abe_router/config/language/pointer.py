"""The position of a JSON pointer, in the text of a JSON file or below a node of the routes file."""

from __future__ import annotations

import re

from abe_router.config.reading.faults import Span
from abe_router.config.reading.node import YamlNode
from abe_router.messages.pointer import is_pointer, parse

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


def locate(text: str, pointer: str) -> Span:
    """Return the span of a pointer in valid JSON: that of a scalar itself, else that of the key.

    If the pointer has no target, return the start of the file.
    """
    wanted = list(parse(pointer))
    where: list[str | int] = []  # the key or index of the current value, in each open container
    key: re.Match[str] | None = None
    tokens = list(_TOKEN.finditer(text))
    for number, token in enumerate(tokens):
        match token[0]:
            case ",":
                key = None
                if isinstance(where[-1], int):
                    where[-1] += 1
                continue
            case ":":
                continue
            case "}" | "]":
                where.pop()
                continue
        if where and number + 1 < len(tokens) and tokens[number + 1][0] == ":" and isinstance(where[-1], str):
            key, where[-1] = token, _unquoted(token[0])
            continue
        container = token[0] in {"{", "["}
        if [str(step) for step in where] == wanted:
            return _span(text, key if container and key is not None else token)
        if container:
            where.append("" if token[0] == "{" else 0)
            key = None
    return Span()


def _unquoted(token: str) -> str:
    return re.sub(
        r"\\(u[0-9a-fA-F]{4}|.)",
        lambda m: chr(int(m[1][1:], 16)) if len(m[1]) > 1 else _ESCAPED.get(m[1], m[1]),
        token[1:-1],
    )


_ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def _span(text: str, token: re.Match[str]) -> Span:
    before = text[: token.start()].splitlines(keepends=True)
    open_line = before and not before[-1].endswith(("\n", "\r"))
    line = len(before) if open_line else len(before) + 1
    column = len(before[-1]) + 1 if open_line else 1
    return Span(line, column, len(token[0]))
