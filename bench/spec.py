"""What one process of a measurement is to do, handed to it in its environment."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

from bench.payload import Kind, Payloads, payloads

_VARIABLE = "ABE_ROUTER_BENCH"

#: What the handler does: nothing, sleep for 1 ms, work for 50 microseconds, or write down when it was called.
Handling = Literal["noop", "sleep", "work", "stamp"]

#: The group, in every contender that knows groups.
GROUP = "bench"


@dataclass(frozen=True, slots=True)
class Spec:
    """The work of one process.

    `folder` is for its files and `url` is where messages are kept. `concurrency` is how many handlers may
    run at once. `count` messages are put in place by a `fill`; `rate` a second are sent by a `pace`, and
    it and a `publish` last for `seconds`. `routes` keys share the messages.
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

    @property
    def keys(self) -> tuple[str, ...]:
        """The routing keys."""
        return tuple(f"orders.r{number}" for number in range(self.routes))

    @property
    def payloads(self) -> Payloads:
        """The payloads to send."""
        return payloads(self.payload)

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self.folder)

    def environment(self) -> dict[str, str]:
        """Return the variables in which another process finds it."""
        return {_VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def received(cls) -> Self:
        """Return the one that this process was given."""
        return cls(**json.loads(os.environ[_VARIABLE]))
