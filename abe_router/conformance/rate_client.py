"""A process that takes tokens: `python -m abe_router.conformance.rate_client URL PREFIX NAME RATE SECONDS`.

It asks for that long, pausing as it is told to, and then says when it first asked, when it was last
answered, both in seconds since the epoch, and how many tokens it was granted.
"""

from __future__ import annotations

import asyncio
import sys
import time

from abe_router.backend import Backend
from abe_router.backends import make_backend


async def ask(backend: Backend, name: str, rate: float, seconds: float) -> tuple[float, float, int]:
    """Take every take_tokens that there is; return when it began and ended, and how many there were."""
    began = answered = time.time()
    granted = 0
    while answered < began + seconds:
        tokens = await backend.take_tokens(name, rate, 1_000_000)
        answered = time.time()
        granted += tokens.granted
        await asyncio.sleep(tokens.seconds)
    return began, answered, granted


async def _main(url: str, store: str, name: str, rate: float, seconds: float) -> None:
    backend = make_backend(url, prefix=store)
    await backend.open()
    try:
        print(*await ask(backend, name, rate, seconds))
    finally:
        await backend.close()


if __name__ == "__main__":
    url, store, name, rate, seconds = sys.argv[1:]
    asyncio.run(_main(url, store, name, float(rate), float(seconds)))
