"""Cut every scenario at every point, and print how many points there were: `python -m tests.backends.crash`.

With `--every 3` one point in three is cut, in every scenario. Kinds are `sqlite`, whose process is killed,
`redis`, `redis-cluster`, `redis-slots` and `redis-sentinel`, whose client is cut off, and `redis-server`,
which is killed itself.
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

from abe_router.backend import Backend
from abe_router.backends.redis import RedisBackend
from abe_router.backends.redis.finder import slot_of
from abe_router.testing import RedisServer
from chaos.redis_servers import RedisCluster, RedisSentinels

from . import commands, statements
from .check import Point
from .scenario import SCENARIOS, Scenario

#: Only data that survives a process counts here, and memory is ten times as fast as a disk.
_MEMORY = Path("/dev/shm")
#: How many clients are cut off at a time.
_CLIENTS = 40
#: How many servers are killed at a time.
_SERVERS = 8


def sqlite(folders: Iterable[Path], scenarios: Sequence[Scenario], every: int) -> list[list[Point]]:
    """Kill processes that use a file."""
    pairs = zip(folders, scenarios, strict=True)
    return [list(statements.points(folder, scenario, every)) for folder, scenario in pairs]


def redis(folders: Iterable[Path], scenarios: Sequence[Scenario], every: int) -> list[list[Point]]:
    """Cut clients off a server."""
    with RedisServer(next(iter(folders))) as server:
        return asyncio.run(_cut(server.url, scenarios, every))


def redis_cluster(folders: Iterable[Path], scenarios: Sequence[Scenario], every: int) -> list[list[Point]]:
    """Cut clients off the node of a cluster that serves their slot."""
    with RedisCluster(next(iter(folders)), replicas=False) as cluster:
        return asyncio.run(_cut(f"{cluster.owner(slot_of('abe')).url}?hash_tag=abe", scenarios, every))


def redis_slots(folders: Iterable[Path], scenarios: Sequence[Scenario], every: int) -> list[list[Point]]:
    """Cut clients off a server whose keys are spread over hash tags."""
    with RedisServer(next(iter(folders))) as server:
        return asyncio.run(_cut(f"{server.url}?hash_tag=abe&slots=3", scenarios, every))


def redis_sentinel(folders: Iterable[Path], scenarios: Sequence[Scenario], every: int) -> list[list[Point]]:
    """Cut clients off the primary that a Sentinel names."""
    with RedisSentinels(next(iter(folders)), sentinels=1) as sentinels:
        return asyncio.run(_cut(sentinels.primary().url, scenarios, every, sentinels.ports[0]))


async def _cut(
    url: str, scenarios: Sequence[Scenario], every: int, sentinel: int | None = None
) -> list[list[Point]]:
    limit = asyncio.Semaphore(_CLIENTS)
    return await asyncio.gather(*(commands.points(url, each, limit, every, sentinel) for each in scenarios))


def redis_server(folders: Iterable[Path], scenarios: Sequence[Scenario], every: int) -> list[list[Point]]:
    """Kill servers that have all they accepted on disk."""

    async def kill() -> list[list[Point]]:
        limit = asyncio.Semaphore(_SERVERS)
        return await asyncio.gather(
            *(commands.points_of_server(*pair, limit, every) for pair in zip(servers, scenarios, strict=True))
        )

    with ExitStack() as stack:
        servers = [stack.enter_context(RedisServer(folder, durable=True)) for folder in folders]
        return asyncio.run(kill())


KINDS: Mapping[str, Callable[[Iterable[Path], Sequence[Scenario], int], list[list[Point]]]] = {
    "sqlite": sqlite,
    "redis": redis,
    "redis-cluster": redis_cluster,
    "redis-slots": redis_slots,
    "redis-sentinel": redis_sentinel,
    "redis-server": redis_server,
}


def main() -> int:
    """Print the points as a table, or as JSON; return 1 if anything was wrong after one of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.backends.crash", description=__doc__)
    parser.add_argument("kind", nargs="*", choices=list(KINDS), help="by default all")
    parser.add_argument("--scenario", action="append", choices=[each.name for each in SCENARIOS])
    parser.add_argument("--every", type=int, default=1, metavar="N", help="cut at one point in N")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # every cut is logged
    found: dict[str, dict[str, list[Point]]] = {}
    for kind in options.kind or KINDS:
        scenarios = _supported(kind, options.scenario)
        with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
            folders = [Path(folder, each.name) for each in scenarios]
            for each in folders:
                each.mkdir()
            points = KINDS[kind](folders, scenarios, options.every)
            found[kind] = dict(zip((each.name for each in scenarios), points, strict=True))
    if options.json:
        print(json.dumps(found))
    else:
        _print(found)
    return int(any(wrong for of in found.values() for points in of.values() for _, wrong in points))


def _supported(kind: str, names: Sequence[str] | None) -> list[Scenario]:
    """Return the scenarios of these names, by default all, that the backend of this kind can run."""
    has_key_value = kind == "sqlite" or RedisBackend.put is not Backend.put
    return [
        each
        for each in SCENARIOS
        if each.name in (names or (each.name,)) and (has_key_value or not each.buckets)
    ]


def _print(found: Mapping[str, Mapping[str, Sequence[Point]]]) -> None:
    for kind, scenarios in found.items():
        for scenario, points in scenarios.items():
            print(f"{kind:15}{scenario:48}{len(points):5} points")
            for where, faults in points:
                for fault in faults:
                    print(f"    {where}: {fault}")
        print(f"{kind:15}{'all':48}{sum(map(len, scenarios.values())):5} points\n")


if __name__ == "__main__":
    sys.exit(main())
