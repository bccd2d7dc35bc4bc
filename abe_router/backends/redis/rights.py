"""The rights that a user of the server needs: the commands that we use, and their keys."""

from __future__ import annotations

import re
from collections.abc import Sequence

from abe_router.backends.redis import scripts
from abe_router.backends.redis.connection import Connection
from abe_router.backends.redis.names import Names, escape_glob
from abe_router.backends.redis.scripts import RIGHTS, Script

#: The commands that are sent as such. Those of the scripts are read from the scripts.
_SENT = (
    "AUTH",
    "CLIENT|ID",
    "CLIENT|SETNAME",
    "CLIENT|UNBLOCK",
    "EVAL",
    "EVALSHA",
    "HDEL",
    "HELLO",
    "HEXISTS",
    "HGET",
    "HGETALL",
    "PING",
    "SADD",
    "SCAN",
    "SELECT",
    "SISMEMBER",
    "SMEMBERS",
    "TIME",
    "XACK",
    "XDEL",
    "XGROUP|CREATE",
    "XINFO|GROUPS",
    "XPENDING",
    "XRANGE",
    "XREAD",
    "XREADGROUP",
    "XREVRANGE",
)
_CONTAINERS = ("CLIENT", "XGROUP", "XINFO")
#: A command as it stands in a script: `redis.call('XADD', …` or `{'XCLAIM', …`.
_IN_LUA = re.compile(r"(?:call\(|\{)'([A-Z]+)'(?:, '([A-Z]+)')?")
#: The server allows them to every user.
_FREE = frozenset({"AUTH", "HELLO"})
#: Commands without a key, and those whose key is not the first argument.
_KEYLESS = frozenset(
    {"CLIENT|ID", "CLIENT|SETNAME", "CLIENT|UNBLOCK", "PING", "SCAN", "SELECT", "TIME", "EVAL", "EVALSHA"}
)
_ARGUMENTS = {"XREAD": "STREAMS", "XREADGROUP": "GROUP g c STREAMS", "EVAL": "0 0", "EVALSHA": "0 0"}


def commands() -> list[str]:
    """Return the commands that we use, in order, with their subcommands after a bar."""
    found = set(_SENT)
    for script in vars(scripts).values():
        if isinstance(script, Script):
            for name, sub in _IN_LUA.findall(script.text):
                found.add(f"{name}|{sub}" if name in _CONTAINERS else name)
    return sorted(found)


def rules(names: Names) -> list[str]:
    """Return the smallest rules of `ACL SETUSER` under which a backend with these names works."""
    allowed = [f"+{name.lower()}" for name in commands() if name not in _FREE]
    others = [f"~{escape_glob(names.others)}*"] if names.streams else []
    return [f"~{names.glob}", *others, "-@all", *allowed]


async def lacking(connection: Connection, names: Names) -> tuple[Sequence[str], Sequence[str]]:
    """Return what the user may not do: the patterns of the keys it may not touch, and the commands.

    The server checks the rights and runs nothing. Raise BackendError when the user may not even ask.
    """
    touched = {f"~{names.glob}": names.stream("x.y"), f"~{escape_glob(names.others)}*": names.keys}
    asked = {pattern: ["EVAL", "return 1", "1", key] for pattern, key in touched.items()}
    asked |= {name: _sample(name, names.stream("x.y")) for name in commands() if name not in _FREE}
    words = [word for sample in asked.values() for word in (str(len(sample)), *sample)]
    refused = await connection.run(RIGHTS, (), words)
    missing = [what for what, may in zip(asked, refused, strict=True) if not may]
    patterns = [what for what in missing if what.startswith("~")]
    # Without the keys every command is refused, which says nothing about the commands.
    return patterns, [] if patterns else [what for what in missing if not what.startswith("~")]


def _sample(command: str, key: str) -> list[str]:
    words = [*command.split("|"), *_ARGUMENTS.get(command, "").split()]
    return words if command in _KEYLESS else [*words, key]
