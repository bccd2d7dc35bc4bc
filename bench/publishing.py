"""Measures publishing: one message after another, many concurrent callers, and batches."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.contender import Contender
from bench.payload import Kind
from bench.server import Server
from bench.testbed import testbed_for


@dataclass(frozen=True, slots=True)
class Published:
    """Messages per second; NaN if a contender has no such API."""

    one: float
    many: float
    batch: float


def publish(contender: Contender, server: Server, seconds: float, *, payload: Kind = "order") -> Published:
    """Publish for `seconds` in each way; each message is checked and encoded."""
    with testbed_for(contender, server) as testbed:
        rates = testbed.run("publish", testbed.spec(seconds=seconds, payload=payload))
    return Published(rates["one"], rates["many"], rates.get("batch", math.nan))
