"""Measures a cluster with one and with three masters, and keys under one and under many hash tags."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from abe_router.backend import ACKED, Acked, Backend, Delivery, Outcome
from abe_router.backends import make_backend
from abe_router.messages.message import Message, new_message
from chaos.redis_servers import RedisCluster, call

#: Numbers of masters, and of hash tags on each cluster.
MASTERS, SLOTS = (1, 3), (1, 16)
#: Number of keys, messages of one append or fetch, and the payload.
_KEYS, _BATCH, _BODY = 48, 500, b'{"id": 1, "total": 99.5, "note": "' + b"x" * 100 + b'"}'


@dataclass(frozen=True, slots=True)
class Found:
    """Messages per second and processor time of the client a message, in seconds, and its connections.

    `emitted` is the rate of messages that each emit one to another key, until all outputs have arrived.
    `idle` is the share of a core that a worker with a pattern takes while nothing happens.
    """

    published: float
    drained: float
    cpu: float
    emitted: float
    idle: float
    connections: int


def cluster(count: int, watch: float) -> Mapping[tuple[int, int], Found]:
    """Return what was found by the numbers of masters and of hash tags."""
    found, count = {}, count // (2 * _BATCH) * 2 * _BATCH
    for masters in MASTERS:
        with (
            tempfile.TemporaryDirectory() as folder,
            RedisCluster(Path(folder), masters=masters, replicas=False) as servers,
        ):
            for slots in SLOTS:
                url = f"{servers.url}?slots={slots}"
                found[masters, slots] = asyncio.run(_measure(url, count, watch, servers))
    return found


async def _measure(url: str, count: int, watch: float, servers: RedisCluster) -> Found:
    messages = [new_message(f"cause.k{n % _KEYS}", _BODY) for n in range(_BATCH)]
    async with make_backend(url, prefix=f"bench{time.monotonic_ns()}.") as backend:
        handle = await backend.subscribe("cause.*", "first")
        published = await _append(backend, messages, count)
        before, cpu = _connections(servers), time.process_time()
        drained = await _drain(backend, "cause.*", "first", count, lambda _: ACKED)
        cpu = time.process_time() - cpu
        await _append(backend, messages, count // 2)
        follower = await backend.subscribe("output.*", "second")
        began = time.perf_counter()
        await asyncio.gather(
            _drain(backend, "cause.*", "first", count // 2, _emit),
            _drain(backend, "output.*", "second", count // 2, lambda _: ACKED),
        )
        emitted = count // 2 / (time.perf_counter() - began)
        waiting = asyncio.gather(handle.fetch(1, watch), follower.fetch(1, watch))
        idle = time.process_time()
        await waiting
        idle = (time.process_time() - idle) / watch
    return Found(published, drained, cpu / count, emitted, idle, before - _connections(servers))


def _emit(delivery: Delivery) -> Outcome:
    return Acked((new_message(delivery.message.key.replace("cause", "output"), delivery.message.body),))


async def _append(backend: Backend, messages: Sequence[Message], count: int) -> float:
    """Append batches, four at a time; return messages per second."""
    left = iter(range(count // _BATCH))

    async def append() -> None:
        for _ in left:
            await backend.append(messages)

    began = time.perf_counter()
    await asyncio.gather(*(append() for _ in range(4)))
    return count / (time.perf_counter() - began)


async def _drain(
    backend: Backend, pattern: str, group: str, count: int, outcome: Callable[[Delivery], Outcome]
) -> float:
    """Settle so many messages; return messages per second."""
    handle, settling = await backend.subscribe(pattern, group), set[asyncio.Future[Sequence[Delivery]]]()
    began, came = time.perf_counter(), 0
    while came < count:
        held = await handle.fetch(_BATCH, 20.0)
        if not held:
            raise RuntimeError(f"{count - came} messages of `{pattern}` do not come")
        came += len(held)
        settling.add(asyncio.ensure_future(handle.settle([(each, outcome(each)) for each in held])))
        if len(settling) > 4:
            _, settling = await asyncio.wait(settling, return_when=asyncio.FIRST_COMPLETED)
    if settling:
        await asyncio.wait(settling)
    rate = count / (time.perf_counter() - began)
    await handle.close()
    return rate


def _connections(servers: RedisCluster) -> int:
    return sum(int(call(node, "INFO", "clients")["connected_clients"]) for node in servers.nodes)
