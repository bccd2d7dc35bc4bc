"""FastStream with `batch=True`: the handler gets up to 500 messages as one list, acked or failed as one."""

# Its packages are not installed in the environment in which mypy runs.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import os
from typing import Any

from faststream import AckPolicy, FastStream
from faststream.redis import StreamSub

from bench.contenders.faststream import connect, make_broker, make_groups
from bench.contenders.role import main, run
from bench.spec import GROUP, Spec


def work(spec: Spec) -> None:
    from bench.handler import COROUTINES

    make_groups(spec)
    handler, check = COROUTINES[spec.handling], spec.payloads.check
    broker = make_broker(spec)

    async def handle(payloads: list[Any]) -> None:
        for payload in payloads:
            check(payload)
            await handler(payload)

    for key in spec.keys:
        stream = StreamSub(key, group=GROUP, consumer=str(os.getpid()), max_records=500, batch=True)
        broker.subscriber(stream=stream, ack_policy=AckPolicy.NACK_ON_ERROR)(handle)
    run(FastStream(broker, logger=None).run(), spec)


if __name__ == "__main__":
    main(connect, work)
