"""Publishing: one message after the other, from many callers at once, and as a batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.contender import Contender
from bench.payload import Kind
from bench.server import Server
from bench.stage import staged


@dataclass(frozen=True, slots=True)
class Published:
    """Messages a second; NaN where a contender has no such way."""

    one: float
    many: float
    batch: float


def publish(contender: Contender, server: Server, seconds: float, *, payload: Kind = "order") -> Published:
    """Send for so many seconds in each way, each message checked and encoded."""
    with staged(contender, server) as stage:
        rates = stage.run("publish", stage.spec(seconds=seconds, payload=payload))
    return Published(rates["one"], rates["many"], rates.get("batch", math.nan))
