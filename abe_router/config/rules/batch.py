"""What is most likely not meant of batches: waits that do not fit, too much in hand, another's handler."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import NamedTuple

from abe_router.backend.rate import BURST
from abe_router.config.reading.code import Code
from abe_router.routing.handler import Handler
from abe_router.routing.route import Route
from abe_router.text import counted, format_duration, format_rate

#: Messages that one route may have in hand without a warning: each is kept in memory, its lease renewed.
MOST_IN_HAND = 20_000
#: How annotations of one payload begin that is no list of payloads.
_SINGLE = ("dict", "Dict", "Mapping", "TypedDict", "str", "int", "float", "bool")


class Finding(NamedTuple):
    """A warning, and the option that it points at."""

    code: Code
    option: tuple[str, ...]
    message: str
    hint: str


def batch_findings(route: Route) -> Iterator[Finding]:
    """Yield what is odd about the batches of a route."""
    batch = route.batch
    if batch is None:
        return
    wait, most = format_duration(batch.wait), batch.size * route.concurrency
    if batch.wait > route.lease:
        lease = format_duration(route.lease)
        message = f"a batch gathers for {wait}, but its messages are leased for {lease}"
        hint = "should a renewal fail, others handle them too: lower `wait`, or raise `lease`"
        yield Finding(Code.BATCH_WAIT, ("batch", "wait"), message, hint)
    elif route.rate is not None:
        come = int(max(1, route.rate * BURST) + route.rate * batch.wait)
        if come < batch.size:
            rate = format_rate(route.rate)
            message = f"at {rate}, {counted(come, 'message')} can come together in {wait}, not {batch.size}"
            yield Finding(Code.BATCH_WAIT, ("batch", "size"), message, "raise `wait`, or lower `size`")
    if most > MOST_IN_HAND:
        message = f"{route.concurrency} batches of {batch.size:,} are {most:,} messages in hand at once"
        hint = f"write `concurrency: {MOST_IN_HAND // batch.size}` or less"
        yield Finding(Code.TOO_MANY_IN_HAND, ("batch", "size"), message, hint)
    if text := _takes_one(route.handler):
        message = f"`{route.handler.path}` takes {text}, but a batch is a list"
        hint = "a batch handler is called as `f(payloads)` or `f(payloads, messages)`"
        yield Finding(Code.NOT_A_BATCH_HANDLER, ("batch",), message, hint)


def _takes_one(handler: Handler) -> str:
    """Return what makes a handler look like one of single messages, or nothing."""
    typed = handler.payload_type
    try:
        parameters = list(inspect.signature(handler.call).parameters.values())
    except (TypeError, ValueError):  # a builtin without a signature
        return ""
    if not parameters:
        return ""
    written = parameters[0].annotation
    name = written if isinstance(written, str) else getattr(written, "__name__", "")
    if name.partition("[")[0].rpartition(".")[2] in _SINGLE or (typed and typed.each is None):
        return f"`{parameters[0].name}: {name}`"
    return "one `message`" if handler.wants_message and parameters[1].name == "message" else ""
