"""The problem that a refused message is answered with, one for each error of publishing.

The reasons are those of the command line: the text of the error, and every violation of a schema, with the
values masked that the schema marks as sensitive.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from abe_router.errors import (
    AbeRouterError,
    BackendError,
    IdInvalid,
    KeyInvalid,
    NoRoute,
    PayloadInvalid,
    PayloadMalformed,
    PayloadUnencodable,
    PublishTimeout,
    Violation,
)
from abe_router.http.problem import RETRY_AFTER, Refusal
from abe_router.operations.errors import KeyForbidden
from abe_router.text import counted, format_duration, mask_credentials


def publish_problem(error: AbeRouterError) -> Refusal:
    """Return the problem for an error that refused a message."""
    text = mask_credentials(str(error))
    match error:
        case PayloadInvalid():
            errors = [_shown(violation) for violation in error.violations]
            if len(errors) > 1:
                text = f"payload for `{error.key}` breaks its schema in {counted(len(errors), 'place')}"
            return Refusal(422, "payload-invalid", "The payload breaks its schema", text, errors=errors)
        case NoRoute():
            return Refusal(404, "no-route", "No route has this key", text)
        case KeyForbidden():
            return Refusal(403, "forbidden", "The token does not allow this", text)
        case IdInvalid():
            return Refusal(422, "id-invalid", "The message has no valid id", text)
        case KeyInvalid():
            return Refusal(400, "key-invalid", "The routing key is malformed", text)
        case PayloadMalformed():
            return Refusal(400, "payload-malformed", "The body cannot be read", text)
        case PayloadUnencodable():
            return Refusal(400, "header-invalid", "A header is not text", text)
    retry = {"Retry-After": str(RETRY_AFTER)}
    return Refusal(503, "backend-unavailable", "The backend cannot be reached", text, headers=retry)


def outcome_unknown(error: BackendError, seconds: float, **members: Any) -> Refusal:
    """Return the problem of messages that the backend may have stored before it failed.

    Their ids are remembered for `seconds`. It is that of `publish_problem` if none of them was sent.
    """
    if isinstance(error, PublishTimeout) and not error.sent:
        return publish_problem(error)
    if seconds:
        hint = f"send it again with the same id: within {format_duration(seconds)} that creates no duplicate"
    else:
        hint = "if it is sent again, it may arrive twice"
    title, text = "It is unknown whether the message was published", mask_credentials(str(error))
    retry = {"Retry-After": str(RETRY_AFTER)}
    return Refusal(503, "outcome-unknown", title, f"{text}; {hint}", headers=retry, **members)


def draining() -> Refusal:
    """Return the problem of messages that arrive while the router stops."""
    retry = {"Retry-After": str(RETRY_AFTER)}
    return Refusal(503, "draining", "The router is about to stop", "send it to another one", headers=retry)


def _shown(violation: Violation) -> dict[str, str]:
    return {name: value for name, value in asdict(violation).items() if value or name == "pointer"}
