"""huey on Redis or SQLite: threads and plain functions, without stored results.

A worker takes a message out of the queue before it runs it, so a crash loses the message; there is no setting
for acknowledgements. On SQLite it syncs every commit, as abe-router does by default.
"""

# Its packages are not installed in the environment in which mypy runs.
# mypy: disable-error-code="import-not-found, untyped-decorator"

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from huey import Huey, RedisHuey, SqliteHuey

from bench.contenders.role import Publisher, main
from bench.spec import Spec

#: More threads are slower, unless the handler waits.
THREADS = 1
#: The default of a tenth of a second is the time between two looks at an empty queue on SQLite.
POLL_DELAY = 0.001

SPEC = Spec.received()


def _huey(spec: Spec) -> Huey:
    if spec.url.startswith("sqlite:"):
        return SqliteHuey("bench", filename=spec.url.removeprefix("sqlite:///"), fsync=True, results=False)
    return RedisHuey("bench", url=spec.url, results=False)


huey = _huey(SPEC)
_check = SPEC.payloads.check


@huey.task(name="handle")
def handle(payload: dict[str, Any]) -> None:
    _check(payload)
    _handler(payload)


class HueyPublisher(Publisher):
    """The call of the task, its only way to publish; threads do not make it faster."""

    async def one(self, key: str, payload: Any) -> None:
        _check(payload)
        handle(payload)


@asynccontextmanager
async def connect(spec: Spec) -> AsyncIterator[HueyPublisher]:
    yield HueyPublisher()


def work(spec: Spec) -> None:
    threads = spec.concurrency if spec.handling == "sleep" else THREADS
    huey.create_consumer(
        workers=threads,
        worker_type="thread",
        initial_delay=POLL_DELAY,
        max_delay=POLL_DELAY,
        periodic=False,
        check_worker_health=False,
    ).run()


if __name__ == "__main__":
    from bench.handler import FUNCTIONS

    _handler = FUNCTIONS[SPEC.handling]
    main(connect, work)
