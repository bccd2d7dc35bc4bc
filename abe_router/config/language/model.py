"""The language of the routes file. Reading, editor completion and the reference all follow this model."""

# Without `from __future__ import annotations`: pydantic would compile the text of each annotation.

import math
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError

from abe_router.config.language.http_model import HttpModel
from abe_router.config.language.pointer import suggest_pointer
from abe_router.config.language.tests_model import CaseModel, StrictModel
from abe_router.messages.dedupe import HEADER_PATTERN, is_header
from abe_router.messages.pattern import GROUP_FORM, MAX_KEY_LENGTH, PATTERN_FORM
from abe_router.messages.pointer import POINTER_PATTERN, is_pointer
from abe_router.text import (
    DURATION_PATTERN,
    RATE_PATTERN,
    parse_duration,
    parse_rate,
    suggest_duration,
    suggest_rate,
)

#: The backend of a file that does not name one.
DEFAULT_BACKEND = "${ABE_ROUTER_BACKEND:-sqlite:///.abe-router.db}"


def _duration(value: Any) -> float:
    try:
        return parse_duration(value if isinstance(value, str) else "")
    except ValueError as error:
        meant = suggest_duration(str(value)) or "30s"
        hint = "the longest duration is a year: `8784h`" if "longer" in str(error) else f"write `{meant}`"
        raise PydanticCustomError("duration", "a duration", {"hint": hint}) from None


def _positive(value: Any) -> float:
    if (seconds := _duration(value)) == 0:
        raise PydanticCustomError("duration", "a duration above zero", {"hint": "write `30s`"})
    return seconds


def _rate(value: Any) -> float:
    try:
        return parse_rate(value if isinstance(value, str) else "")
    except ValueError as error:
        hint = f"write `{suggest_rate(str(value)) or '100/s'}`"
        if str(value).startswith("0/"):
            hint = "to stop a route, write `paused: true`"
        elif "between" in str(error):
            hint = "a rate is at least one message a year and at most `1000000/s`"
        raise PydanticCustomError("rate", "a rate", {"hint": hint}) from None


def _start(value: Any) -> float:
    if value in ("earliest", "latest"):
        return 0.0 if value == "earliest" else math.inf
    try:
        moment = datetime.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        hint = "write `earliest`, `latest` or a time such as `2026-01-31T09:00:00Z`"
        raise PydanticCustomError("timestamp", "`earliest`, `latest` or a time", {"hint": hint}) from None
    if moment.tzinfo is None:
        hint = f"write `{moment.isoformat()}Z` for UTC"
        raise PydanticCustomError("timestamp", "a time with a UTC offset", {"hint": hint})
    return max(0.0, moment.timestamp())


def _pointer(value: Any) -> str:
    if isinstance(value, str) and is_pointer(value):
        return value
    meant = suggest_pointer(value) if isinstance(value, str) else ""
    hint = f"write `{meant}`" if meant else "write a pointer such as `/customer/id`"
    raise PydanticCustomError("pointer", "a JSON pointer", {"hint": hint})


def _id_source(value: Any) -> str:
    if isinstance(value, str) and (is_pointer(value) or is_header(value)):
        return value
    hint = "write its location in the payload, such as `/order_id`, or the name of a header"
    if isinstance(value, str) and value[:1] in {"$", ".", "/"} and (meant := suggest_pointer(value)):
        hint = f"write `{meant}`"
    raise PydanticCustomError("id", "a JSON pointer or the name of a header", {"hint": hint})


def _json_schema(value: Any) -> Any:
    if not isinstance(value, dict | bool):
        hint = "write it as a mapping: `{properties: {total: {minimum: 100}}}`"
        raise PydanticCustomError("json_schema", "a JSON Schema", {"hint": hint})
    return value


_DURATION = {"type": "string", "pattern": DURATION_PATTERN}
_START = {"anyOf": [{"enum": ["earliest", "latest"]}, {"type": "string", "format": "date-time"}]}
Duration = Annotated[float, BeforeValidator(_duration), WithJsonSchema(_DURATION)]
PositiveDuration = Annotated[float, BeforeValidator(_positive), WithJsonSchema(_DURATION)]
Rate = Annotated[float, BeforeValidator(_rate), WithJsonSchema({"type": "string", "pattern": RATE_PATTERN})]
Pointer = Annotated[
    str, BeforeValidator(_pointer), WithJsonSchema({"type": "string", "pattern": POINTER_PATTERN})
]
IdSource = Annotated[
    str,
    BeforeValidator(_id_source),
    WithJsonSchema({"type": "string", "pattern": rf"{POINTER_PATTERN}|{HEADER_PATTERN}"}),
]
Start = Annotated[float, BeforeValidator(_start), WithJsonSchema(_START)]
Filter = Annotated[Any, BeforeValidator(_json_schema), WithJsonSchema({"type": ["object", "boolean"]})]
Description = Annotated[str | None, Field(description="What it is for, in plain text.")]
Tags = Annotated[list[str], Field(description="Words to group it by in documentation.")]
Owner = Annotated[str | None, Field(description="The team or person that is responsible for it.")]


class RetryModel(StrictModel):
    """The retry policy of a consumer."""

    attempts: int = Field(5, ge=1, le=1000, description="Number of attempts, including the first.")
    initial: Duration = Field(
        "200ms", validate_default=True, description="Longest delay before the second attempt."
    )
    factor: float = Field(2, gt=0, le=1000, description="Each delay is this many times the previous one.")
    max: Duration = Field("30s", validate_default=True, description="Limit for each delay.")
    jitter: bool = Field(
        True,
        description="Draw each delay at random between zero and its full length, so that retries spread out.",
    )


class BatchModel(StrictModel):
    """The size of a batch, and how long it may wait to become full."""

    size: int = Field(100, ge=1, le=10_000, description="Largest number of messages in a batch.")
    wait: Duration = Field(
        "50ms", validate_default=True, description="Longest time that the first message waits for the others."
    )


class OptionsModel(StrictModel):
    """The options of a consumer. `defaults` takes them for all consumers."""

    concurrency: int = Field(
        10, ge=1, le=10_000, description="Number of messages that are handled at the same time."
    )
    timeout: PositiveDuration = Field(
        "30s",
        validate_default=True,
        description="Time limit for one attempt. An attempt that takes longer has failed.",
    )
    retry: RetryModel = Field(
        default_factory=RetryModel, description="How often and after which delay a failed attempt is retried."
    )
    max_deliveries: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="Number of deliveries, including those that a crash interrupted, after which a message"
        " becomes a dead letter without being handled. Default: `retry.attempts` plus 5.",
    )
    max_unacked: int = Field(
        500,
        ge=1,
        le=10_000,
        description="Most handled messages that may wait for their ack. At this limit, no further"
        " message starts.",
    )
    lease: PositiveDuration = Field(
        "30s",
        validate_default=True,
        description="How long a message stays reserved for a worker that stopped responding. Then another"
        " worker gets it.",
    )
    drain: Duration = Field(
        "30s",
        validate_default=True,
        description="How long running handlers may take to finish when the route stops.",
    )
    dead_letter: bool = Field(
        True, description="Keep messages that cannot be handled as dead letters. With `false`, drop them."
    )
    when: Filter = Field(
        None,
        description="A JSON Schema as filter. Messages that do not match are settled without the handler.",
    )
    on_invalid: Literal["dead_letter", "drop", "deliver"] = Field(
        "dead_letter",
        description="What happens to a message that breaks its schema: `dead_letter`, `drop` or `deliver`.",
    )
    start: Start = Field(
        "earliest",
        validate_default=True,
        description="Where a new group begins: `earliest` (the first stored message), `latest`"
        " (the next message),"
        " or a time.",
    )
    paused: bool = Field(False, description="Keep the subscription, but fetch no messages.")
    batch: BatchModel | None = Field(
        None,
        description="Pass lists of messages to the handler. Without it, or with `null`, one"
        " message at a time.",
    )
    rate: Rate | None = Field(
        None, description="Most messages that all processes together handle in a period, such as `100/s`."
    )
    order_by: Pointer | None = Field(
        None,
        description="A JSON pointer, such as `/customer/id`. Messages of one key with the same"
        " value there are"
        " handled one after the other, in the order in which they were accepted.",
    )


class ConsumerModel(OptionsModel):
    """The handler of a group, with its options."""

    handler: str = Field(
        description="The function, as `package.module:function`.",
        json_schema_extra={"pattern": r"^[^:]+:[^:]+$"},
    )
    emit: str | None = Field(
        None,
        description="A routing key. The return value of the handler is published under it, in the step that"
        " settles the message. `None` is not published.",
    )
    description: Description = None
    tags: Tags = Field([])
    owner: Owner = None

    @model_validator(mode="before")
    @classmethod
    def _from_short_form(cls, value: Any) -> Any:
        return {"handler": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        long = handler.resolve_ref_schema(handler(core_schema))
        said = "The handler, with every option as in `defaults`."
        return {"anyOf": [{**long["properties"]["handler"], "description": said}, long]}


class TraceModel(StrictModel):
    """Traces, for a program that uses OpenTelemetry."""

    ratio: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the messages without a trace context that begin a trace, such as `0.01`."
        " A message with a context follows it.",
    )
    baggage: list[str] = Field(
        [],
        description="Members of the header `baggage` that reach handlers, and the messages that they publish"
        " or emit. The others are removed there.",
    )


class EntryModel(StrictModel):
    """A routing key or pattern: its message contract and its consumers."""

    schema_: str | None = Field(
        None,
        alias="schema",
        description="The JSON Schema that every message of the key must satisfy: a file in the"
        " folder `schemas`.",
    )
    consumers: dict[str, ConsumerModel] | None = Field(
        None,
        description="The handler of each group. A key without consumers can only be published to.",
        json_schema_extra={"propertyNames": {"pattern": GROUP_FORM}},
    )
    id: IdSource | None = Field(
        None,
        description="The source of each message's id: a JSON pointer into the payload, such as"
        " `/order_id`, or"
        " the name of a header.",
    )
    dedupe: PositiveDuration | None = Field(
        None,
        description="How long an id is remembered. A message that is published with the same id"
        " in that time is"
        " not stored again.",
    )
    retain: Duration = Field(
        "0s",
        validate_default=True,
        description="How long a message is kept after every group has settled it, for groups that"
        " are added later.",
    )
    description: Description = None
    tags: Tags = Field([])
    owner: Owner = None


class FileModel(StrictModel):
    """The routes file of abe-router."""

    backend: str = Field(
        DEFAULT_BACKEND,
        description="The URL of the backend, which stores the messages: `memory://`, `sqlite:///PATH`,"
        " `redis://HOST:PORT/DB`, or the URL of any other provider.",
    )
    schemas: str = Field("schemas", description="The folder of the schemas. No `$ref` may lead out of it.")
    prefix: str = Field(
        "",
        pattern=r"^[A-Za-z0-9_.:/@=+~-]{0,64}$",
        description="A prefix of the names under which the backend stores messages. Files with"
        " different prefixes"
        " share a backend without seeing each other's messages.",
    )
    formats: bool = Field(
        True, description="Check `format` in schemas, for every draft. With `false`, ignore it."
    )
    unrouted: Literal["error", "allow"] = Field(
        "error",
        description="Whether publishing to a key that the file does not mention is refused"
        " (`error`) or allowed"
        " (`allow`).",
    )
    trace: TraceModel = Field(default_factory=TraceModel, description="Which messages are traced.")
    http: HttpModel | None = Field(
        None, description="The HTTP server. Without it, `serve --http` uses the defaults."
    )
    defaults: OptionsModel = Field(
        default_factory=OptionsModel, description="Options that every consumer inherits."
    )
    routes: dict[str, EntryModel | None] = Field(
        description="Routing keys and patterns, with their options.",
        json_schema_extra={"propertyNames": {"pattern": PATTERN_FORM, "maxLength": MAX_KEY_LENGTH}},
    )
    tests: dict[str, CaseModel] = Field(
        default_factory=dict, description="Test cases by name. `abe-router test` runs them in memory."
    )
