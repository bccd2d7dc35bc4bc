"""Processes that use a backend beside others.

    python -m abe_router.conformance.clients tokens URL PREFIX NAME RATE SECONDS
    python -m abe_router.conformance.clients count URL PREFIX BUCKET NAME TIMES

The first takes tokens for SECONDS and waits as each grant says. It prints when it first asked and when it was
last answered, in seconds since the epoch, and how many tokens it was granted. The second adds one to a number
in the key-value store, TIMES times, by compare-and-set, and prints how often it had to try again.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from abe_router.backend import Backend
from abe_router.backends import make_backend


async def run_client(role: str, *arguments: str) -> list[str]:
    """Run a client in a process of its own; return the words that it prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "abe_router.conformance.clients", role, *arguments),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    printed, _ = await process.communicate()
    return printed.decode().split()


async def take_tokens_for(
    backend: Backend, name: str, rate: float, seconds: float
) -> tuple[float, float, int]:
    """Take every token there is; return when it began and ended, and how many were granted."""
    began = answered = time.time()
    granted = 0
    while answered < began + seconds:
        tokens = await backend.take_tokens(name, rate, 1_000_000)
        answered = time.time()
        granted += tokens.granted
        await asyncio.sleep(tokens.seconds)
    return began, answered, granted


async def count(backend: Backend, bucket: str, name: str, times: int) -> int:
    """Add one to a number, so many times, by compare-and-set; return how often it had to try again."""
    again = 0
    for _ in range(times):
        while True:
            entry = await backend.get(bucket, name)
            number, revision = (int(entry.value), entry.revision) if entry else (0, 0)
            if await backend.put(bucket, name, b"%d" % (number + 1), expected=revision):
                break
            again += 1
    return again


async def _main(role: str, url: str, prefix: str, *arguments: str) -> None:
    async with make_backend(url, prefix=prefix) as backend:
        if role == "tokens":
            name, rate, seconds = arguments
            print(*await take_tokens_for(backend, name, float(rate), float(seconds)))
        else:
            bucket, name, times = arguments
            print(await count(backend, bucket, name, int(times)))


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
