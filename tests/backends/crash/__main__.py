"""Cut every story at every point, and say how many points there were: `python -m tests.backends.crash`.

Kinds are `sqlite`, whose process is killed, `redis`, whose client is cut off, and `redis-server`, which is
killed itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from abe_router.testing import RedisServer

from . import commands, statements
from .story import STORIES, Story
from .verdict import Point

#: What outlives a process there is all that counts here, and it is ten times as fast as a disk.
_MEMORY = Path("/dev/shm")
#: Clients that are cut off at a time.
_CLIENTS = 40
#: Servers that are killed at a time.
_SERVERS = 8


def sqlite(folders: Iterable[Path], stories: Sequence[Story]) -> list[list[Point]]:
    """Kill processes that use a file."""
    return [list(statements.points(folder, story)) for folder, story in zip(folders, stories, strict=True)]


def redis(folders: Iterable[Path], stories: Sequence[Story]) -> list[list[Point]]:
    """Cut clients off a server."""

    async def cut() -> list[list[Point]]:
        room = asyncio.Semaphore(_CLIENTS)
        return await asyncio.gather(*(commands.points(server.url, story, room) for story in stories))

    with RedisServer(next(iter(folders))) as server:
        return asyncio.run(cut())


def redis_server(folders: Iterable[Path], stories: Sequence[Story]) -> list[list[Point]]:
    """Kill servers that have all they accepted on disk."""

    async def kill() -> list[list[Point]]:
        room = asyncio.Semaphore(_SERVERS)
        return await asyncio.gather(
            *(commands.points_of_server(*pair, room) for pair in zip(servers, stories, strict=True))
        )

    with ExitStack() as stack:
        servers = [stack.enter_context(RedisServer(folder, durable=True)) for folder in folders]
        return asyncio.run(kill())


KINDS: Mapping[str, Callable[[Iterable[Path], Sequence[Story]], list[list[Point]]]] = {
    "sqlite": sqlite,
    "redis": redis,
    "redis-server": redis_server,
}


def main() -> int:
    """Print the points as a table, or as JSON; return 1 if anything was wrong after one of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.backends.crash", description=__doc__)
    parser.add_argument("kind", nargs="*", choices=list(KINDS), help="by default all")
    parser.add_argument("--story", action="append", choices=[story.name for story in STORIES])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)  # there, every cut is told
    stories = [story for story in STORIES if story.name in (asked.story or story.name)]
    found: dict[str, dict[str, list[Point]]] = {}
    for kind in asked.kind or KINDS:
        with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
            folders = [Path(folder, story.name) for story in stories]
            for each in folders:
                each.mkdir()
            found[kind] = dict(zip((s.name for s in stories), KINDS[kind](folders, stories), strict=True))
    if asked.json:
        print(json.dumps(found))
    else:
        _print(found)
    return int(any(wrong for of in found.values() for points in of.values() for _, wrong in points))


def _print(found: Mapping[str, Mapping[str, Sequence[Point]]]) -> None:
    for kind, stories in found.items():
        for story, points in stories.items():
            print(f"{kind:14}{story:32}{len(points):5} points")
            for where, wrong in points:
                for fault in wrong:
                    print(f"    {where}: {fault}")
        print(f"{kind:14}{'all':32}{sum(map(len, stories.values())):5} points\n")


if __name__ == "__main__":
    sys.exit(main())
