"""W3C trace contexts in the headers of messages. This module needs no library for traces."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

#: The headers of a context: https://www.w3.org/TR/trace-context/ and https://www.w3.org/TR/baggage/
TRACEPARENT, TRACESTATE, BAGGAGE = "traceparent", "tracestate", "baggage"
_TRACE_ID = slice(3, 35)
#: Where the last digit of the flags is, and what it is if the span is sampled. Other bits may be set too.
LAST_FLAG, SAMPLED = slice(54, 55), frozenset("13579bdf")


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """The share of the messages without a context that begin a trace, and the baggage that travels on.

    `baggage` has the names of the members of the header `baggage` that may reach handlers and further
    messages. The others end at the message that has them.
    """

    ratio: float = 0.0
    baggage: frozenset[str] = frozenset()


def trace_id_of(headers: Mapping[str, str]) -> str:
    """Return the id of the trace in headers, or an empty text."""
    return headers.get(TRACEPARENT, "")[_TRACE_ID]


def derived(
    headers: Mapping[str, str], context: Mapping[str, str] | None, names: Collection[str]
) -> dict[str, str]:
    """Return headers for a message that follows from the one that has `headers`.

    The `context` replaces that of the headers, which is passed on without one. Of the baggage, only members
    with one of `names` remain.
    """
    found = {**headers}
    if context:
        found.pop(TRACESTATE, None)
        found.update(context)
    if baggage := found.pop(BAGGAGE, ""):
        found |= allowed_baggage(baggage, names)
    return found


def allowed_baggage(header: str, names: Collection[str]) -> dict[str, str]:
    """Return a `baggage` header with only the members that have one of these names; none without members."""
    members = (member.strip() for member in header.split(","))
    kept = ",".join(member for member in members if member.partition("=")[0].strip() in names)
    return {BAGGAGE: kept} if kept else {}
