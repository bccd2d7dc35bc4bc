"""celery on Redis: late acks, so that a crash loses nothing, and no results."""

# Its packages are not installed in the environment in which mypy runs.
# mypy: disable-error-code="import-not-found, untyped-decorator"

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from celery import Celery

from bench.contenders.role import Publisher, main
from bench.spec import Spec

SPEC = Spec.received()

app = Celery("bench", broker=f"redis+socket://{SPEC.url.removeprefix('unix://').partition('?')[0]}")
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=100,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)

_check = SPEC.payloads.check


@app.task(name="handle")
def handle(payload: dict[str, Any]) -> None:
    _check(payload)
    _handler(payload)


class CeleryPublisher(Publisher):
    """`apply_async`, its only way to publish."""

    async def one(self, key: str, payload: Any) -> None:
        _check(payload)
        handle.apply_async((payload,))


@asynccontextmanager
async def connect(spec: Spec) -> AsyncIterator[CeleryPublisher]:
    yield CeleryPublisher()


def work(spec: Spec) -> None:
    pool = ["threads", str(spec.concurrency)] if spec.handling == "sleep" else ["solo", "1"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "ERROR"]
    os.execv(
        sys.executable,
        [sys.executable, "-m", "celery", "-A", __spec__.name, "worker", "-P", pool[0], "-c", pool[1], *quiet],
    )


if __name__ == "__main__":
    main(connect, work)
else:
    from bench.handler import FUNCTIONS

    _handler = FUNCTIONS[SPEC.handling]
