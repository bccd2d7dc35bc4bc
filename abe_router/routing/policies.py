"""The policies of a route for retries, batches and emitted messages. They are values without I/O."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from abe_router.errors import TooManyHops
from abe_router.messages.message import Message
from abe_router.observe.trace_context import derived
from abe_router.routing.contract import MessageContract

#: Header that counts the handlers that led to a message.
HOPS = "abe-hops"
#: Header that holds the id of the message whose handler emitted this one.
CAUSE = "abe-cause"
#: The attributes that CloudEvents defines, as headers. They name one event, or describe its data.
_CLOUDEVENTS = frozenset(
    f"ce-{name}"
    for name in ("specversion", "id", "source", "type", "subject", "time", "dataschema", "datacontenttype")
)
#: Most handlers in a row. A cycle of routes that emit to each other ends here.
MAX_HOPS = 16


@dataclass(frozen=True, slots=True)
class TryAgain:
    """The decision to try again after `delay` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The decision that no further attempt is made."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and after which delay a failed attempt is retried.

    `attempts` counts the first one, so 1 means no retry. Delays, in seconds, grow from `initial` by
    `factor` up to `max`. With `jitter` each is drawn between zero and that value (full jitter, see
    "Exponential Backoff and Jitter", AWS Architecture Blog, 2015), which spreads retries best.
    """

    attempts: int = 5
    initial: float = 0.2
    factor: float = 2.0
    max: float = 30.0
    jitter: bool = True

    def delay(self, attempt: int) -> float:
        """Return the longest delay, in seconds, after failed attempt number `attempt` (from 1)."""
        try:
            grown = self.initial * self.factor ** (attempt - 1)
        except OverflowError:
            grown = self.max
        return min(self.max, grown)

    def decide(self, attempt: int, after: float | None = None) -> TryAgain | GiveUp:
        """Decide what follows failed attempt number `attempt`. `after` overrides the delay, in seconds."""
        if attempt >= self.attempts:
            return GiveUp()
        if after is not None:
            return TryAgain(after)
        longest = self.delay(attempt)
        return TryAgain(random.uniform(0, longest) if self.jitter else longest)  # noqa: S311

    def window(self) -> float:
        """Return the longest total delay, in seconds, between the first and the last attempt."""
        return sum(self.delay(attempt) for attempt in range(1, self.attempts))


@dataclass(frozen=True, slots=True)
class Batch:
    """Pass up to `size` messages to the handler at once. The first one waits at most `wait` seconds."""

    size: int
    wait: float = 0.05


def is_inherited(header: str) -> bool:
    """Return whether an emitted message has the header of its cause; the names of headers ignore case."""
    return header.lower() not in _CLOUDEVENTS


@dataclass(frozen=True, slots=True)
class Emit:
    """Publish the return value of the handler under `key`, if it satisfies the contract of that key.

    The message is appended in the step that settles its cause, so a crash neither loses nor duplicates it.
    `baggage` has the names of the members of the header `baggage` that the message inherits.
    """

    key: str
    contract: MessageContract = field(default_factory=MessageContract)
    baggage: frozenset[str] = frozenset()

    @property
    def window(self) -> float:
        """How long the ids of emitted messages are remembered, in seconds."""
        return self.contract.window()

    def message(self, cause: Message, payload: Any, trace: Mapping[str, str] | None = None) -> Message:
        """Return the message to append for what a handler returned.

        It inherits the headers of its cause, except the attributes of CloudEvents: it is another event.
        `trace` is the trace context of the handler, which replaces that of the cause. Raise
        PayloadUnencodable, PayloadInvalid, IdInvalid, or TooManyHops.
        """
        text = cause.headers.get(HOPS, "0")
        # A publisher may write anything there. Python does not read numbers of thousands of digits.
        hops = 1 + (int(text) if text.isascii() and text.isdecimal() and len(text) < 5 else 0)
        if hops > MAX_HOPS:
            raise TooManyHops(f"came through {MAX_HOPS} handlers already: do routes emit in a cycle?")
        inherited = {name: value for name, value in cause.headers.items() if is_inherited(name)}
        headers = derived(inherited, trace, self.baggage) | {HOPS: str(hops), CAUSE: cause.id}
        return self.contract.message_of(self.key, payload, headers)
