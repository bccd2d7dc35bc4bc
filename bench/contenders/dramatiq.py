"""dramatiq on Redis: one process with threads and plain functions, which are faster than its coroutines."""

# Its packages are not installed in the environment in which mypy runs.
# mypy: disable-error-code="import-not-found, untyped-decorator"

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.contenders.role import Publisher, main
from bench.spec import Spec

SPEC = Spec.received()

broker = RedisBroker(url=SPEC.url)
dramatiq.set_broker(broker)
dramatiq.set_encoder(dramatiq.encoder.JSONEncoder())

_check = SPEC.payloads.check


@dramatiq.actor(actor_name="handle", queue_name="orders", max_retries=4)
def handle(payload: dict[str, Any]) -> None:
    _check(payload)
    _handler(payload)


class DramatiqPublisher(Publisher):
    """`send`, its only way to publish; threads do not make it faster."""

    async def one(self, key: str, payload: Any) -> None:
        _check(payload)
        handle.send(payload)


@asynccontextmanager
async def connect(spec: Spec) -> AsyncIterator[DramatiqPublisher]:
    yield DramatiqPublisher()


def work(spec: Spec) -> None:
    threads = spec.concurrency if spec.handling == "sleep" else 4
    os.environ["dramatiq_queue_prefetch"] = "500"  # noqa: SIM112  dramatiq spells it so
    options = ["--processes", "1", "--threads", str(threads), "--skip-logging"]
    os.execv(sys.executable, [sys.executable, "-m", "dramatiq", __spec__.name, *options])


if __name__ == "__main__":
    main(connect, work)
else:
    from bench.handler import FUNCTIONS

    _handler = FUNCTIONS[SPEC.handling]
