"""Handlers whose annotations or parameters are probably mistakes, or cannot work."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from itertools import islice

from abe_router.config.reading.code import Code
from abe_router.config.rules.contradiction import contradictions
from abe_router.config.rules.finding import Finding, OptionSpans
from abe_router.routing.handler import Handler
from abe_router.routing.route import Route

#: Most contradictions reported for one handler.
MOST_CONTRADICTIONS = 5
#: Names of a second parameter that is meant to be the Message, and annotations of one.
_MESSAGE = re.compile(r"_.*|m|ms|.*(message|msg|meta|envelope).*", re.IGNORECASE)
_ANNOTATED = re.compile(r"\b(Message|Any|object)\b")


def handler_findings(route: Route, options: OptionSpans) -> Iterator[Finding]:
    """Yield the findings about the handler of a route."""
    handler, span = route.handler, options.handler(route)
    if handler.unusable:
        message = f"the annotation of `{handler.path}` has no effect: {handler.unusable}"
        hint = (
            "import the type at run time, not under `TYPE_CHECKING`"
            if "not defined" in handler.unusable
            else ""
        )
        hint = f"{hint or 'use another type'}, or payloads arrive as decoded JSON"
        yield Finding(Code.ANNOTATION_UNUSABLE, span, message, hint)
    if name := _second(handler):
        message = f"the parameter `{name}` of `{handler.path}` gets the Message"
        hint = "call it `message` if that is meant, or give it a default"
        yield Finding(Code.SECOND_PARAMETER, span, message, hint)
    found = list(islice(contradictions(route), MOST_CONTRADICTIONS))
    typed = handler.payload_type
    if not found or typed is None:
        return
    message = f"`{handler.path}` takes `{typed.name}`, which the schema contradicts:"
    message += f" {'; '.join(each.message for each in found)}"
    if not found[0].total:
        hint = "a payload that the schema allows but the type does not becomes a dead letter"
        yield Finding(Code.TYPE_CONTRADICTED, span, message, hint)
    elif typed.each is not None and route.batch is None:
        hint = "for lists of messages, write `batch: {size: 100}`; or annotate one payload"
        yield Finding(Code.HANDLER_TYPE, span, message, hint)
    else:
        yield Finding(Code.HANDLER_TYPE, span, message, "every message would become a dead letter")


def _second(handler: Handler) -> str:
    """Return the second parameter of a handler if it is not clear that it takes the Message."""
    if not handler.wants_message:
        return ""
    try:
        second = list(inspect.signature(handler.call).parameters.values())[1]
    except (TypeError, ValueError, IndexError):
        return ""
    if _MESSAGE.fullmatch(second.name) or _ANNOTATED.search(str(second.annotation)):
        return ""
    return second.name
