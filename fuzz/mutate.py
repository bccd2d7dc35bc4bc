"""Random changes of bytes, text and JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from random import Random
from typing import Any

#: Pieces that parsers, terminals and patterns treat specially.
ODD_BYTES = (
    b"",
    b"\x00",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\r",
    b"\x1b[2J",
    b"\xe2\x80\xa8",
    b"\t",
    b"- ",
    b": ",
    b"&a ",
    b"*a",
    b"!!python/name:os.system ",
    b"<<: ",
    b"? ",
    b"| ",
    b"> ",
    b"#",
    b"${HOME}",
    b"${",
    b"${A:-",
    b"{",
    b"}",
    b"[",
    b"]",
    b"'",
    b'"',
    b"\\",
    b"---\n",
    b"...\n",
    b"1e999",
    b"-1",
    b"0",
    b"9" * 400,
    b"null",
    b"yes",
    b"*.*.#",
    b"a" * 300,
    b"://:@",
    b"%",
    b"5s",
    b"100/s",
    b"\n",
)
#: Values of each kind, with the edges of each.
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**53 + 1,
    2**64,
    10**30,
    -(2**63),
    0.1,
    -0.0,
    1e-320,
    1.7e308,
    "",
    "a",
    "\x00",
    "\u2028",
    "\U0001f600",
    "é",
    "::error::",
    "\x1b[31m",
    "/",
    "~",
    "~1",
    "#",
    "*",
    "a" * 300,
    [],
    {},
    [[]],
    {"": ""},
)


def mutate_bytes(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Return data with a few changes: of bytes, of lines, or with a part of another input."""
    for _ in range(random.choice((1, 1, 1, 2, 4, 8))):
        data = _change(random, data, others)
    return data


def _change(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    start = random.randrange(len(data) + 1)
    end = min(len(data), start + random.choice((0, 1, 1, 2, 8, 40)))
    lines = data.splitlines(keepends=True) or [b""]
    row = random.randrange(len(lines))
    match random.randrange(8):
        case 0:
            return data[:start] + data[end:]
        case 1:
            return data[:start] + random.choice(ODD_BYTES) + data[end:]
        case 2:
            return data[:start] + random.randbytes(random.choice((1, 2, 5))) + data[end:]
        case 3:
            return data[:start] + data[start:end] * random.choice((2, 3, 50)) + data[end:]
        case 4:
            del lines[row]
        case 5:
            other = random.choice(others).splitlines(keepends=True) or [b""]
            first = random.randrange(len(other))
            lines[row:row] = other[first : first + random.choice((1, 2, 5))]
        case 6:
            indent = b" " * random.choice((1, 2, 4))
            lines[row] = lines[row].removeprefix(indent) if random.random() < 0.5 else indent + lines[row]
        case _:
            # The value of one option goes to another.
            name, colon, _ = lines[row].partition(b":")
            _, _, value = random.choice(random.choice(others).splitlines() or [b""]).partition(b":")
            lines[row] = name + colon + value + b"\n" if colon else lines[row]
    return b"".join(lines)


def mutate_value(random: Random, value: Any, leaves: Sequence[Any] = ODD_VALUES) -> Any:
    """Return a JSON value with a few changes: of leaves, members and items."""
    value = deepcopy(value)
    for _ in range(random.choice((1, 1, 2, 4))):
        value = _change_value(random, value, leaves)
    return value


def _change_value(random: Random, value: Any, leaves: Sequence[Any]) -> Any:
    if isinstance(value, dict) and value and random.random() < 0.85:
        name = random.choice(list(value))
        match random.randrange(8):
            case 0:
                del value[name]
            case 1:
                value[random.choice([*value, "", "~/", "é"])] = value[name]
            case 2:
                value[name] = deepcopy(random.choice(leaves))
            case _:
                value[name] = _change_value(random, value[name], leaves)
        return value
    if isinstance(value, list) and value and random.random() < 0.85:
        index = random.randrange(len(value))
        match random.randrange(6):
            case 0:
                del value[index]
            case 1:
                value.insert(index, deepcopy(random.choice(value)))
            case _:
                value[index] = _change_value(random, value[index], leaves)
        return value
    return deepcopy(random.choice(leaves))
