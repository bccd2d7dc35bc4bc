"""Batches that are probably mistakes: an unsuitable wait, too many messages in flight, a wrong handler."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from abe_router.backend.rate import BURST
from abe_router.config.reading.code import Code
from abe_router.config.rules.finding import Finding, OptionSpans
from abe_router.routing.handler import Handler
from abe_router.routing.route import Route
from abe_router.text import counted, format_duration, format_rate

#: Messages that one route may have in flight without a warning. Each takes memory and lease renewals.
MOST_IN_FLIGHT = 20_000
#: Annotations of a single payload, not of a list of payloads.
_SINGLE = ("dict", "Dict", "Mapping", "TypedDict", "str", "int", "float", "bool")


def batch_findings(route: Route, options: OptionSpans) -> Iterator[Finding]:
    """Yield the findings about the batches of a route."""
    batch = route.batch
    if batch is None:
        return
    wait, most = format_duration(batch.wait), batch.size * route.concurrency
    if batch.wait > route.lease:
        lease = format_duration(route.lease)
        message = f"a batch waits up to {wait}, but its messages are leased for {lease}"
        hint = "lower `wait`, or raise `lease`; if a renewal fails, other workers handle the messages too"
        yield Finding(Code.BATCH_WAIT, options.nearest(route, "batch", "wait"), message, hint)
    elif route.rate is not None:
        come = int(max(1, route.rate * BURST) + route.rate * batch.wait)
        if come < batch.size:
            rate = format_rate(route.rate)
            message = f"at {rate}, at most {counted(come, 'message')} can arrive in {wait}, not {batch.size}"
            yield Finding(
                Code.BATCH_WAIT,
                options.nearest(route, "batch", "size"),
                message,
                "raise `wait`, or lower `size`",
            )
    if most > MOST_IN_FLIGHT:
        message = f"{route.concurrency} batches of {batch.size:,} are {most:,} messages in flight at once"
        hint = f"write `concurrency: {MOST_IN_FLIGHT // batch.size}` or less"
        yield Finding(Code.TOO_MANY_IN_FLIGHT, options.nearest(route, "batch", "size"), message, hint)
    if text := _takes_one(route.handler):
        message = f"`{route.handler.path}` takes {text}, but a batch is a list"
        hint = "a batch handler is called as `f(payloads)` or `f(payloads, messages)`"
        yield Finding(Code.NOT_A_BATCH_HANDLER, options.nearest(route, "batch"), message, hint)


def _takes_one(handler: Handler) -> str:
    """Return the parameter that shows that a handler takes single messages, or an empty string."""
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
