"""Routes, as values.

A route holds live objects (function, compiled schema), so a test needs no YAML. It compares by value, so a
reload knows what changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from abe_router.routing.contract import SchemaBinding
from abe_router.routing.handler import Handler
from abe_router.routing.policies import Batch, Emit, RetryPolicy
from abe_router.schema import Schema

OnInvalid = Literal["dead_letter", "drop", "deliver"]


@dataclass(frozen=True, slots=True)
class Route:
    """One consumer: the source of its messages, its handler and its policies.

    Durations are in seconds. `bindings` are those whose pattern overlaps this route's. A message must
    satisfy each one that matches its key. `max_deliveries` of None means retry attempts plus 5.
    `max_unacked` limits how many handled messages wait for their ack before further ones begin.
    `start` is in seconds since the epoch: 0 is the earliest stored message, infinity the next one.
    `rate` is in messages a second, over all processes. `order_by` is a JSON pointer: messages of one key
    with the same value there are handled one after the other, in the order in which they were accepted.
    """

    key: str
    group: str
    handler: Handler
    bindings: tuple[SchemaBinding, ...] = ()
    when: Schema | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    concurrency: int = 10
    timeout: float = 30.0
    lease: float = 30.0
    drain: float = 30.0
    max_deliveries: int | None = None
    max_unacked: int = 500
    on_invalid: OnInvalid = "dead_letter"
    dead_letter: bool = True
    start: float = 0.0
    paused: bool = False
    batch: Batch | None = None
    rate: float | None = None
    order_by: str | None = None
    emit: Emit | None = None

    @property
    def name(self) -> str:
        """Its identity, `key/group`."""
        return f"{self.key}/{self.group}"

    @property
    def delivery_limit(self) -> int:
        """How often one message may be delivered before it becomes a dead letter without being handled."""
        return self.max_deliveries if self.max_deliveries is not None else self.retry.attempts + 5
