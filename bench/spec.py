"""The work of one process of a measurement, passed in its environment."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

from bench.payload import Kind, Payloads, payloads

_VARIABLE = "ABE_ROUTER_BENCH"

#: What the handler does: nothing, sleep for 1 ms, work for 50 microseconds, record when it was called, raise
#: `Reject`, or raise another error.
Handling = Literal["noop", "sleep", "work", "stamp", "reject", "fail"]

#: The most messages in a batch, and the most bytes.
BATCH, BATCH_BYTES = 500, 8_000_000

#: The group, for contenders with consumer groups.
GROUP = "bench"


@dataclass(frozen=True, slots=True)
class Spec:
    """The work of one process.

    `folder` holds its files, and `url` is the backend. At most `concurrency` handlers run at the same time.
    A `fill` publishes `count` messages. A `pace` publishes `rate` messages per second. Both
    `pace` and `publish` last for `seconds`. The messages are spread over `routes` keys, each with a route;
    with `by_pattern`, one route with a pattern handles them all. Each route has `groups` groups.
    """

    folder: str
    url: str
    payload: Kind = "order"
    handling: Handling = "noop"
    concurrency: int = 10
    count: int = 0
    rate: int = 0
    seconds: float = 1.0
    routes: int = 1
    uvloop: bool = True
    by_pattern: bool = False
    groups: int = 1

    @property
    def patterns(self) -> tuple[str, ...]:
        """The keys of the routes, or their one pattern."""
        return ("orders.*",) if self.by_pattern else self.keys

    @property
    def keys(self) -> tuple[str, ...]:
        """The routing keys."""
        return tuple(f"orders.r{number}" for number in range(self.routes))

    @property
    def payloads(self) -> Payloads:
        """The payloads to send."""
        return payloads(self.payload)

    @property
    def batch(self) -> int:
        """The number of messages in a batch: fewer if they are large."""
        return min(BATCH, BATCH_BYTES // self.payloads.size)

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self.folder)

    def environment(self) -> dict[str, str]:
        """Return the environment variables that pass it to a process."""
        return {_VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def received(cls) -> Self:
        """Return the specification of this process."""
        return cls(**json.loads(os.environ[_VARIABLE]))
