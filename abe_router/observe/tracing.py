"""Traces with OpenTelemetry: spans for publishing and handling, with the W3C context in message headers.

The library is imported only if the program has set a tracer provider. A message costs a look at one flag of
its `traceparent`, unless it is sampled. Then its handler runs in a span, which is

- a child of the publisher's span, at a first attempt soon after the publication;
- the root of a trace of its own, linked to the publisher's span and to the failed attempt before it, at a
  retry, at a replay, and for a message that has waited longer than LINK_AFTER. So no trace lasts for hours;
- the root of a trace of its own, linked to each message, for a batch.

The failed attempts that this process has made are known by message id. After a crash, or in another process,
a retry or a replay is linked to the publisher's span alone.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

from abe_router.observe import log_context
from abe_router.observe.events import DeadLettered, Event, Retried
from abe_router.observe.log_context import DescribedMessage
from abe_router.observe.logs import without_value
from abe_router.observe.trace_context import (
    BAGGAGE,
    LAST_FLAG,
    SAMPLED,
    TRACEPARENT,
    TraceOptions,
    allowed_baggage,
)

#: A message that has waited longer, in seconds, is handled in a trace of its own.
LINK_AFTER = 600.0
#: Most failed attempts that are remembered for the links of the next ones.
MOST_FAILED = 10_000
#: What `messaging.system` says.
SYSTEM = "abe_router"


class AttemptSpan:
    """The span of one call of a handler. `headers` are the context for the messages that it emits."""

    def __init__(self, span: Any, headers: Mapping[str, str]) -> None:
        self._span, self.headers = span, headers
        self.failed = False

    def end_with(self, events: Sequence[Event | None]) -> None:
        """Record what the attempt came to, by the events of its messages.

        A failed attempt has `error.type`. The status of the span is an error only if a message has ended.
        """
        failures = [event for event in events if isinstance(event, Retried | DeadLettered)]
        if self._span is None or not failures:
            return
        from opentelemetry.trace import Status, StatusCode

        self.failed = True
        ended = [event for event in failures if isinstance(event, DeadLettered)]
        first = (ended or failures)[0]
        text = without_value(first.error, first.kind == "invalid")
        name, _, message = text.partition(": ")
        self._span.set_attribute("error.type", name if first.kind != "timeout" else "timeout")
        trace = "\n".join(map(without_value, first.traceback.split("\n")))
        details = {"type": name, "message": message, "stacktrace": trace}
        self._span.add_event(
            "exception", {f"exception.{key}": value for key, value in details.items() if value}
        )
        if ended:
            self._span.set_status(Status(StatusCode.ERROR, text))


#: The span of a call that is not traced.
NO_SPAN = AttemptSpan(None, {})


class Tracing:
    """Makes spans with the tracer of a provider.

    `wants` and `wants_to_publish` are called for each message, and the rest only for those that are traced.
    """

    def __init__(self, provider: Any) -> None:
        from opentelemetry import baggage, context, trace
        from opentelemetry.baggage.propagation import W3CBaggagePropagator
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._trace, self._context, self._baggage = trace, context, baggage
        self._provider = provider
        self._tracer = trace.get_tracer(SYSTEM, tracer_provider=provider)
        self._contexts, self._baggages = TraceContextTextMapPropagator(), W3CBaggagePropagator()
        self._sampled = int(trace.TraceFlags.SAMPLED)
        #: Where a context has its span.
        self._span_key = next(iter(trace.set_span_in_context(trace.INVALID_SPAN, context.Context())))
        self._options = TraceOptions()
        self._failed: dict[tuple[str, str], Any] = {}

    @classmethod
    def if_set_up(cls) -> Self | None:
        """Return the tracing with the program's tracer provider, None if the program has set none."""
        trace = sys.modules.get("opentelemetry.trace")
        if trace is None:
            return None
        provider = trace.get_tracer_provider()
        if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
            return None
        return cls(provider)

    def flush(self, seconds: float) -> None:
        """Let the provider export the spans that have ended. It may take longer than `seconds`."""
        if (flush := getattr(self._provider, "force_flush", None)) is not None:
            flush(round(seconds * 1000))

    def follow(self, options: TraceOptions) -> None:
        """Use these options from now on."""
        self._options = options

    def wants(self, headers: Mapping[str, str]) -> bool:
        """Return whether the handler of a message with these headers is to run in a span."""
        parent = headers.get(TRACEPARENT)
        if parent is not None:
            return parent[LAST_FLAG] in SAMPLED
        ratio = self._options.ratio
        return ratio > 0.0 and random.random() < ratio  # noqa: S311

    def wants_to_publish(self, headers: Mapping[str, str] | None) -> bool:
        """Return whether a message that is published now gets a context. One that has a context keeps it."""
        if headers and TRACEPARENT in headers:
            return False
        ratio = self._options.ratio
        # As `get_current_span` does, in a third of the time.
        current: Any = self._context.get_current().get(self._span_key)
        if current is not None:
            span = current.get_span_context()
            if span.trace_flags & self._sampled:
                return True
            if ratio <= 0.0 or span.is_valid:
                return False
        return ratio > 0.0 and random.random() < ratio  # noqa: S311

    @contextmanager
    def publishing(self, message: DescribedMessage) -> Iterator[Mapping[str, str]]:
        """Append a message in a span, a child of the current one; yield its headers with the context."""
        attributes = {**_attributes("publish", "send", message.key), "messaging.message.id": message.id}
        with self._tracer.start_as_current_span(
            f"publish {message.key}",
            kind=self._trace.SpanKind.PRODUCER,
            attributes=attributes,
            record_exception=False,
        ):
            yield {**self._current_baggage(), **message.headers, **self._injected()}

    @contextmanager
    def processing(
        self,
        pattern: str,
        group: str,
        messages: Sequence[DescribedMessage],
        *,
        is_batch: bool,
        is_replay: bool = False,
    ) -> Iterator[AttemptSpan]:
        """Call the handler of the route `pattern/group` in a span."""
        route = f"{pattern}/{group}"
        parent, links = self._relation(route, messages, is_batch=is_batch, is_replay=is_replay)
        attributes = self._attributes_of(pattern, group, messages, is_batch=is_batch)
        with (
            self._attached(parent),
            self._tracer.start_as_current_span(
                f"process {pattern}",
                kind=self._trace.SpanKind.CONSUMER,
                links=links,
                attributes=attributes,
                record_exception=False,
            ) as span,
        ):
            own = span.get_span_context()
            log_context.trace_id.set(f"{own.trace_id:032x}" if own.is_valid else "")
            attempt = AttemptSpan(span, self._injected())
            try:
                yield attempt
            finally:
                log_context.trace_id.set("")
                if attempt.failed and own.is_valid:
                    self._remember(route, messages, own)

    @contextmanager
    def _attached(self, context: Any) -> Iterator[None]:
        """Make a context the current one."""
        token = self._context.attach(context)
        try:
            yield
        finally:
            self._context.detach(token)

    def _relation(
        self, route: str, messages: Sequence[DescribedMessage], *, is_batch: bool, is_replay: bool
    ) -> tuple[Any, list[Any]]:
        """Return the context in which the span begins, and its links."""
        root = self._context.Context()
        first = messages[0]
        contexts = [self._extracted(message.headers) for message in messages]
        former = [self._failed.pop((route, message.id), None) for message in messages]
        if not is_batch:
            root = self._with_baggage(root, first.headers)
        is_first = first.attempt <= 1 and not is_replay and former == [None]
        if not is_batch and is_first and time.time() - first.published_at < LINK_AFTER:
            if contexts[0].is_valid:
                root = self._trace.set_span_in_context(self._trace.NonRecordingSpan(contexts[0]), root)
            return root, []
        links = [self._trace.Link(context) for context in contexts if context.is_valid]
        links += [self._trace.Link(one, {"abe_router.link": "failed attempt"}) for one in former if one]
        return root, links

    def _attributes_of(
        self, pattern: str, group: str, messages: Sequence[DescribedMessage], *, is_batch: bool
    ) -> dict[str, Any]:
        first = messages[0]
        attributes = _attributes("process", "process", pattern if is_batch else first.key)
        attributes["messaging.consumer.group.name"] = group
        if "*" in pattern or "#" in pattern:
            attributes["messaging.destination.template"] = pattern
        if is_batch:
            attributes["messaging.batch.message_count"] = len(messages)
        else:
            attributes["messaging.message.id"] = first.id
            attributes["abe_router.attempt"] = first.attempt
        return attributes

    def _remember(self, route: str, messages: Sequence[DescribedMessage], own: Any) -> None:
        """Remember the span of a failed attempt, for the link of the next one."""
        for message in messages:
            self._failed[route, message.id] = own
        while len(self._failed) > MOST_FAILED:
            del self._failed[next(iter(self._failed))]

    def _extracted(self, headers: Mapping[str, str]) -> Any:
        """Return the span context in headers, which may be invalid."""
        found = self._contexts.extract(dict(headers), self._context.Context())
        return self._trace.get_current_span(found).get_span_context()

    def _injected(self) -> dict[str, str]:
        """Return the current span context as headers; none if it is invalid."""
        headers: dict[str, str] = {}
        self._contexts.inject(headers)
        return headers

    def _with_baggage(self, context: Any, headers: Mapping[str, str]) -> Any:
        if allowed := allowed_baggage(headers.get(BAGGAGE, ""), self._options.baggage):
            return self._baggages.extract(allowed, context)
        return context

    def _current_baggage(self) -> dict[str, str]:
        """Return the current baggage as a header, without what must not travel on."""
        headers: dict[str, str] = {}
        self._baggages.inject(headers)
        return allowed_baggage(headers.get(BAGGAGE, ""), self._options.baggage)


def _attributes(operation: str, kind: str, destination: str) -> dict[str, Any]:
    """Return the attributes of every span, as in the semantic conventions for messaging."""
    return {
        "messaging.system": SYSTEM,
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
        "messaging.destination.name": destination,
    }
