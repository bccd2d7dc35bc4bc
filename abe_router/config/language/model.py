"""The language of the routes file. Reading, editor completion and the reference all follow this model."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError

from abe_router.config.language.pointer import suggest_pointer
from abe_router.config.language.tests_model import Case
from abe_router.messages.dedupe import HEADER_PATTERN, is_header
from abe_router.messages.pointer import POINTER_PATTERN, is_pointer
from abe_router.text import (
    DURATION_PATTERN,
    RATE_PATTERN,
    parse_duration,
    parse_rate,
    suggest_duration,
    suggest_rate,
)

#: Where messages are kept when the file does not say.
DEFAULT_BACKEND = "${ABE_ROUTER_BACKEND:-sqlite:///.abe-router.db}"


def _duration(value: Any) -> float:
    try:
        return parse_duration(value if isinstance(value, str) else "")
    except ValueError as error:
        meant = suggest_duration(str(value)) or "30s"
        hint = "the longest is a year: `8784h`" if "longer" in str(error) else f"write `{meant}`"
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
            hint = "`paused: true` holds a route back for good"
        elif "between" in str(error):
            hint = "at least one a year, and at most `1000000/s`"
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
        raise PydanticCustomError("timestamp", "a time with its offset from UTC", {"hint": hint})
    return max(0.0, moment.timestamp())


def _pointer(value: Any) -> str:
    if isinstance(value, str) and is_pointer(value):
        return value
    meant = suggest_pointer(value) if isinstance(value, str) else ""
    hint = f"write `{meant}`" if meant else "write it as a path, such as `/customer/id`"
    raise PydanticCustomError("pointer", "a JSON pointer", {"hint": hint})


def _id_source(value: Any) -> str:
    if isinstance(value, str) and (is_pointer(value) or is_header(value)):
        return value
    hint = "write where in the payload it is, such as `/order_id`, or the name of a header"
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


class _Mapping(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Retry(_Mapping):
    """When a failed delivery is tried again."""

    attempts: int = Field(5, ge=1, le=1000, description="How often it is tried, the first time included.")
    initial: Duration = Field("200ms", validate_default=True, description="The first delay, at the longest.")
    factor: float = Field(2, gt=0, le=1000, description="By how much each delay is longer than the last.")
    max: Duration = Field("30s", validate_default=True, description="The longest delay.")
    jitter: bool = Field(
        True, description="Draw each delay between zero and its full length, so that retries spread out."
    )


class Batch(_Mapping):
    """How many messages a handler gets at once, and how long they may take to come together."""

    size: int = Field(100, ge=1, le=10_000, description="How many messages a handler gets at most.")
    wait: Duration = Field(
        "50ms", validate_default=True, description="How long the first of them waits for the others."
    )


class Options(_Mapping):
    """What a consumer may say, and `defaults` for all of them."""

    concurrency: int = Field(10, ge=1, le=10_000, description="How many messages are handled at once.")
    timeout: PositiveDuration = Field(
        "30s", validate_default=True, description="How long a handler may take; then the attempt has failed."
    )
    retry: Retry = Field(
        default_factory=Retry, description="How often and when a failed delivery is tried again."
    )
    max_deliveries: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="How often a message is handed out, crashes included, before it is dead-lettered"
        " unhandled; `retry.attempts` plus 5 when absent.",
    )
    max_unacked: int = Field(
        500,
        ge=1,
        le=10_000,
        description="How many handled messages may wait for their ack; with more, no further one begins.",
    )
    lease: PositiveDuration = Field(
        "30s",
        validate_default=True,
        description="How long a message is reserved without a sign of life; then another worker gets it.",
    )
    drain: Duration = Field(
        "30s", validate_default=True, description="How long what runs may take when the route stops."
    )
    dead_letter: bool = Field(True, description="Keep what ends unhandled as dead letters, or drop it.")
    when: Filter = Field(
        None, description="A JSON Schema as filter: what does not match is settled without its handler."
    )
    on_invalid: Literal["dead_letter", "drop", "deliver"] = Field(
        "dead_letter",
        description="What to do with a message that breaks its schema: `dead_letter`, `drop` or `deliver`.",
    )
    start: Start = Field(
        "earliest",
        validate_default=True,
        description="Where a new group begins: the earliest message kept, the next to come, or a time.",
    )
    paused: bool = Field(False, description="Keep the subscription, but fetch nothing.")
    batch: Batch | None = Field(
        None, description="Hand over lists of messages; one at a time when absent or `null`."
    )
    rate: Rate | None = Field(
        None, description="How many messages are handled at most, all processes together, such as `100/s`."
    )
    order_by: Pointer | None = Field(
        None,
        description="A JSON pointer, such as `/customer/id`: messages of a key with the same value there are"
        " handled one after the other, in the order they were accepted.",
    )


class Consumer(Options):
    """One group's handler, with its options."""

    handler: str = Field(
        description="The function, as `package.module:function`.",
        json_schema_extra={"pattern": r"^[^:]+:[^:]+$"},
    )
    emit: str | None = Field(
        None,
        description="The routing key under which what the handler returns is published, in the step that"
        " settles its message; nothing is when it returns `None`.",
    )

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


class Entry(_Mapping):
    """A routing key or pattern: its contract, and who consumes it."""

    schema_: str | None = Field(
        None,
        alias="schema",
        description="The JSON Schema of every message of the key: a file in the folder `schemas`.",
    )
    consumers: dict[str, Consumer] | None = Field(
        None, description="The handler of each group; without any, the key is only published to."
    )
    id: IdSource | None = Field(
        None,
        description="Where the id of every message comes from: a JSON pointer into the payload, such as"
        " `/order_id`, or the name of a header.",
    )
    dedupe: PositiveDuration | None = Field(
        None,
        description="How long an id is remembered: what is published with it again meanwhile is not kept.",
    )
    retain: Duration = Field(
        "0s",
        validate_default=True,
        description="How long messages are kept that every group has settled, for groups added later.",
    )


class File(_Mapping):
    """The routes file of abe-router."""

    backend: str = Field(
        DEFAULT_BACKEND,
        description="Where messages are kept: `memory://`, `sqlite:///PATH`, `redis://HOST:PORT/DB`,"
        " or the URL of any provider.",
    )
    schemas: str = Field("schemas", description="The folder of the schemas; no `$ref` leaves it.")
    prefix: str = Field(
        "",
        pattern=r"^[A-Za-z0-9_.:/@=+~-]{0,64}$",
        description="What comes before each key in the names of what the backend stores.",
    )
    formats: bool = Field(
        True, description="Assert `format` in schemas, for all drafts alike; or take it for a remark."
    )
    unrouted: Literal["error", "allow"] = Field(
        "error", description="What publishing to a key is that nothing here mentions: `error` or `allow`."
    )
    defaults: Options = Field(default_factory=Options, description="What every consumer inherits.")
    routes: dict[str, Entry | None] = Field(description="Routing keys, and patterns of them.")
    tests: dict[str, Case] = Field(
        default_factory=dict, description="Cases by name, which `abe-router test` runs in memory."
    )
