"""The language of the routes file. Reading, editor completion and the reference all follow this model."""

# Without `from __future__ import annotations`: msgspec would compile the text of each annotation.

import re
from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET, Meta, UnsetType, field

from abe_router.config.language.forms import (
    Duration,
    Model,
    Pointer,
    PositiveDuration,
    Rate,
    Start,
    Text,
    Unfit,
    about,
    choice,
)
from abe_router.config.language.http_model import HttpModel
from abe_router.config.language.pointer import suggest_pointer
from abe_router.config.language.tests_model import CaseModel
from abe_router.config.reading.code import Code
from abe_router.messages.dedupe import HEADER_PATTERN, is_header
from abe_router.messages.pattern import GROUP_FORM, MAX_KEY_LENGTH, PATTERN_FORM
from abe_router.messages.pointer import POINTER_PATTERN, is_pointer


class IdSource(Text):
    """A JSON pointer, or the name of a header."""

    __slots__ = ()
    schema: ClassVar[dict[str, Any]] = {"type": "string", "pattern": rf"{POINTER_PATTERN}|{HEADER_PATTERN}"}

    @classmethod
    def check(cls, value: Any) -> None:  # noqa: D102  inherited
        if isinstance(value, str) and (is_pointer(value) or is_header(value)):
            return
        hint = "write its location in the payload, such as `/order_id`, or the name of a header"
        if isinstance(value, str) and value[:1] in {"$", ".", "/"} and (meant := suggest_pointer(value)):
            hint = f"write `{meant}`"
        raise Unfit("a JSON pointer or the name of a header", hint, Code.ID)


class Prefix(Text):
    """A prefix of the names under which the backend stores messages."""

    __slots__ = ()
    schema: ClassVar[dict[str, Any]] = {"type": "string", "pattern": r"^[A-Za-z0-9_.:/@=+~-]{0,64}$"}

    @classmethod
    def check(cls, value: Any) -> None:  # noqa: D102  inherited
        if not isinstance(value, str):
            raise Unfit("text", code=Code.WRONG_TYPE)
        if not re.fullmatch(cls.schema["pattern"], value):
            raise Unfit("a prefix", "use letters, digits and `_.:/@=+~-`, at most 64 characters")


_NOT_A_SCHEMA = Unfit(
    "a JSON Schema", "write it as a mapping: `{properties: {total: {minimum: 100}}}`", Code.WRONG_TYPE
)
#: A JSON Schema as filter.
Filter = Annotated[dict[str, Any] | bool, Meta(extra={"unfit": _NOT_A_SCHEMA})]
_OnInvalid = Literal["dead_letter", "drop", "deliver"]
_Unrouted = Literal["error", "allow"]
Description = Annotated[str | None, about("What it is for, in plain text.")]
Tags = Annotated[list[str], about("Words to group it by in documentation.")]
Owner = Annotated[str | None, about("The team or person that is responsible for it.")]


class RetryModel(Model, frozen=True, kw_only=True):
    """The retry policy of a consumer."""

    attempts: Annotated[int, about("Number of attempts, including the first.", ge=1, le=1000)] = 5
    initial: Annotated[Duration, about("Longest delay before the second attempt.")] = Duration("200ms")
    factor: Annotated[float, about("Each delay is this many times the previous one.", le=1000, gt=0)] = 2
    max: Annotated[Duration, about("Limit for each delay.")] = Duration("30s")
    jitter: Annotated[
        bool, about("Draw each delay at random between zero and its full length, so that retries spread out.")
    ] = True


class BatchModel(Model, frozen=True, kw_only=True):
    """The size of a batch, and how long it may wait to become full."""

    size: Annotated[int, about("Largest number of messages in a batch.", ge=1, le=10_000)] = 100
    wait: Annotated[Duration, about("Longest time that the first message waits for the others.")] = Duration(
        "50ms"
    )


class OptionsModel(Model, frozen=True, kw_only=True):
    """The options of a consumer. `defaults` takes them for all consumers."""

    concurrency: Annotated[
        int, about("Number of messages that are handled at the same time.", ge=1, le=10_000)
    ] = 10
    timeout: Annotated[
        PositiveDuration, about("Time limit for one attempt. An attempt that takes longer has failed.")
    ] = PositiveDuration("30s")
    retry: Annotated[RetryModel, about("How often and after which delay a failed attempt is retried.")] = (
        RetryModel()
    )
    max_deliveries: Annotated[
        Annotated[int, Meta(ge=1, le=10_000)] | None,
        about(
            "Number of deliveries, including those that a crash interrupted, after which a message"
            " becomes a dead letter without being handled. Default: `retry.attempts` plus 5."
        ),
    ] = None
    max_unacked: Annotated[
        int,
        about(
            "Most handled messages that may wait for their ack. At this limit, no further message starts.",
            ge=1,
            le=10_000,
        ),
    ] = 500
    lease: Annotated[
        PositiveDuration,
        about(
            "How long a message stays reserved for a worker that stopped responding. Then another worker"
            " gets it."
        ),
    ] = PositiveDuration("30s")
    drain: Annotated[
        Duration, about("How long running handlers may take to finish when the route stops.")
    ] = Duration("30s")
    dead_letter: Annotated[
        bool, about("Keep messages that cannot be handled as dead letters. With `false`, drop them.")
    ] = True
    when: Annotated[
        Filter | UnsetType,
        about("A JSON Schema as filter. Messages that do not match are settled without the handler."),
    ] = UNSET
    on_invalid: Annotated[
        _OnInvalid,
        choice(_OnInvalid),
        about("What happens to a message that breaks its schema: `dead_letter`, `drop` or `deliver`."),
    ] = "dead_letter"
    start: Annotated[
        Start,
        about(
            "Where a new group begins: `earliest` (the first stored message), `latest` (the next"
            " message), or a time."
        ),
    ] = Start("earliest")
    paused: Annotated[bool, about("Keep the subscription, but fetch no messages.")] = False
    batch: Annotated[
        BatchModel | None,
        about("Pass lists of messages to the handler. Without it, or with `null`, one message at a time."),
    ] = None
    rate: Annotated[
        Rate | None, about("Most messages that all processes together handle in a period, such as `100/s`.")
    ] = None
    order_by: Annotated[
        Pointer | None,
        about(
            "A JSON pointer, such as `/customer/id`. Messages of one key with the same value there are"
            " handled one after the other, in the order in which they were accepted."
        ),
    ] = None


class ConsumerModel(OptionsModel, frozen=True, kw_only=True):
    """The handler of a group, with its options."""

    short: ClassVar[str] = "handler"

    handler: Annotated[
        str,
        about("The function, as `package.module:function`.", extra_json_schema={"pattern": r"^[^:]+:[^:]+$"}),
    ]
    emit: Annotated[
        str | None,
        about(
            "A routing key. The return value of the handler is published under it, in the step that"
            " settles the message. `None` is not published."
        ),
    ] = None
    description: Description = None
    tags: Tags = field(default_factory=list)
    owner: Owner = None


class TraceModel(Model, frozen=True, kw_only=True):
    """Traces, for a program that uses OpenTelemetry."""

    ratio: Annotated[
        float,
        about(
            "Share of the messages without a trace context that begin a trace, such as `0.01`. A message"
            " with a context follows it.",
            ge=0,
            le=1,
        ),
    ] = 0.0
    baggage: Annotated[
        list[str],
        about(
            "Members of the header `baggage` that reach handlers, and the messages that they publish or"
            " emit. The others are removed there."
        ),
    ] = field(default_factory=list)


class EntryModel(Model, frozen=True, kw_only=True):
    """A routing key or pattern: its message contract and its consumers."""

    schema_: Annotated[
        str | None,
        about("The JSON Schema that every message of the key must satisfy: a file in the folder `schemas`."),
    ] = field(default=None, name="schema")
    consumers: Annotated[
        dict[str, ConsumerModel] | None,
        about(
            "The handler of each group. A key without consumers can only be published to.",
            extra_json_schema={"propertyNames": {"pattern": GROUP_FORM}},
        ),
    ] = None
    id: Annotated[
        IdSource | None,
        about(
            "The source of each message's id: a JSON pointer into the payload, such as `/order_id`, or"
            " the name of a header."
        ),
    ] = None
    dedupe: Annotated[
        PositiveDuration | None,
        about(
            "How long an id is remembered. A message that is published with the same id in that time is"
            " not stored again."
        ),
    ] = None
    retain: Annotated[
        Duration,
        about(
            "How long a message is kept after every group has settled it, for groups that are added later."
        ),
    ] = Duration("0s")
    description: Description = None
    tags: Tags = field(default_factory=list)
    owner: Owner = None


class FileModel(Model, frozen=True, kw_only=True):
    """The routes file of abe-router."""

    backend: Annotated[
        str | UnsetType,
        about(
            "The URL of the backend, which stores the messages: `memory://`, `sqlite:///PATH`,"
            " `redis://HOST:PORT/DB`, or the URL of any other provider."
            " `--backend` and `$ABE_ROUTER_BACKEND` take precedence.",
            extra_json_schema={"default": "sqlite:///.abe-router.db"},
        ),
    ] = UNSET
    schemas: Annotated[str, about("The folder of the schemas. No `$ref` may lead out of it.")] = "schemas"
    prefix: Annotated[
        Prefix,
        about(
            "A prefix of the names under which the backend stores messages. Files with different prefixes"
            " share a backend without seeing each other's messages."
        ),
    ] = Prefix("")
    formats: Annotated[
        bool, about("Check `format` in schemas, for every draft. With `false`, ignore it.")
    ] = True
    unrouted: Annotated[
        _Unrouted,
        choice(_Unrouted),
        about(
            "Whether publishing to a key that the file does not mention is refused (`error`) or allowed"
            " (`allow`)."
        ),
    ] = "error"
    trace: Annotated[TraceModel, about("Which messages are traced.")] = TraceModel()
    http: Annotated[
        HttpModel | None, about("The HTTP server. Without it, `serve --http` uses the defaults.")
    ] = None
    defaults: Annotated[OptionsModel, about("Options that every consumer inherits.")] = OptionsModel()
    routes: Annotated[
        dict[str, EntryModel | None],
        about(
            "Routing keys and patterns, with their options.",
            extra_json_schema={"propertyNames": {"pattern": PATTERN_FORM, "maxLength": MAX_KEY_LENGTH}},
        ),
    ]
    tests: Annotated[
        dict[str, CaseModel], about("Test cases by name. `abe-router test` runs them in memory.")
    ] = field(default_factory=dict)


def inherit(file: Any) -> Any:
    """Return the value of a file in which each consumer has the options of `defaults` that it does not give.

    Of `retry` and `batch` it has each option that it does not give. What is no mapping stays as it is.
    """
    if not isinstance(file, dict) or not isinstance(defaults := file.get("defaults"), dict) or not defaults:
        return file
    routes = file.get("routes")
    if not isinstance(routes, dict):
        return file
    return file | {"routes": {key: _with_defaults(entry, defaults) for key, entry in routes.items()}}


def _with_defaults(entry: Any, defaults: dict[str, Any]) -> Any:
    if not isinstance(entry, dict) or not isinstance(consumers := entry.get("consumers"), dict):
        return entry
    return entry | {"consumers": {group: _merged(defaults, own) for group, own in consumers.items()}}


def _merged(defaults: dict[str, Any], own: Any) -> Any:
    if not isinstance(own, dict):
        return own
    parts = {
        name: defaults[name] | own[name]
        for name in ("retry", "batch")
        if isinstance(defaults.get(name), dict) and isinstance(own.get(name), dict)
    }
    return defaults | own | parts
