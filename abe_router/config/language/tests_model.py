"""The language of `tests`: cases that `abe-router test` runs in memory."""

# Without `from __future__ import annotations`: msgspec would compile the text of each annotation.

from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET, UnsetType, field

from abe_router.config.language.forms import SOME, Model, Text, Unfit, about, choice
from abe_router.config.language.pointer import suggest_pointer
from abe_router.config.reading.code import Code
from abe_router.messages.pointer import is_pointer


class _PointerOrRoot(Text):
    """A JSON pointer; the empty one is the whole payload."""

    __slots__ = ()
    schema: ClassVar[dict[str, Any]] = {"type": "string"}

    @classmethod
    def check(cls, value: Any) -> None:
        if not isinstance(value, str):
            raise Unfit("text", code=Code.WRONG_TYPE)
        if value and not is_pointer(value):  # no payload can be wrong there
            raise Unfit("a JSON pointer", f"write `{suggest_pointer(value) or '/total'}`", Code.POINTER)


# What a test expects may be left out, and not be null: any message would meet that expectation.
_Payload = Annotated[Any, about("The exact payload.")]
_Part = Annotated[Any, about("A part of the payload. Its objects may have further members.")]
_Route = Annotated[str, about("The route, as `KEY/GROUP`.")]
_At = Annotated[
    _PointerOrRoot | UnsetType, about("A JSON pointer to the value that breaks the schema, such as `/total`.")
]
_Keyword = Annotated[str | UnsetType, about("The keyword of the schema that the payload breaks.")]
_Error = Annotated[str | UnsetType, about("A part of the name and text of the error.")]
_Kind = Literal["rejected", "failed", "timeout", "invalid", "malformed", "max_deliveries"]


class PublishModel(Model, frozen=True, kw_only=True):
    """A message that a case publishes."""

    key: Annotated[str, about("The routing key.")]
    payload: Annotated[Any, about("The payload: any JSON value.")]
    headers: Annotated[dict[str, str], about("The headers.")] = field(default_factory=dict)
    id: Annotated[str | UnsetType, about("The id. Without it, the message gets a new one.")] = UNSET
    unchecked: Annotated[
        bool, about("Publish without checking the schemas, as a program that does not use them could.")
    ] = False


class GotModel(Model, frozen=True, kw_only=True):
    """A message that a route handled or skipped."""

    short: ClassVar[str] = "route"
    route: _Route
    payload: _Payload = UNSET
    containing: _Part = UNSET


class DeadModel(Model, frozen=True, kw_only=True):
    """A message that became a dead letter of a route."""

    short: ClassVar[str] = "route"
    route: _Route
    payload: _Payload = UNSET
    containing: _Part = UNSET
    at: _At = UNSET
    keyword: _Keyword = UNSET
    error: _Error = UNSET
    kind: Annotated[
        Annotated[_Kind, choice(_Kind)] | UnsetType,
        about(
            "The reason: `rejected` or `failed` (by the handler), `timeout`, `invalid`, `malformed` or"
            " `max_deliveries`."
        ),
    ] = UNSET


class EmittedModel(Model, frozen=True, kw_only=True):
    """A message that a handler emitted."""

    short: ClassVar[str] = "key"
    payload: _Payload = UNSET
    containing: _Part = UNSET
    key: Annotated[str, about("The routing key.")]


class RejectedModel(Model, frozen=True, kw_only=True):
    """A message that is refused when it is published."""

    short: ClassVar[str] = "at"
    at: _At = UNSET
    keyword: _Keyword = UNSET
    error: _Error = UNSET
    key: Annotated[str | UnsetType, about("The routing key. Without it, any key.")] = UNSET


class CaseModel(Model, frozen=True, kw_only=True):
    """One test: what is published, and what is expected to happen."""

    publish: Annotated[tuple[PublishModel, ...], SOME, about("The message to publish, or a list of them.")]
    handled: Annotated[
        tuple[GotModel, ...],
        SOME,
        about("Messages that are handled: the name of a route, or one or more mappings."),
    ] = ()
    dead: Annotated[
        tuple[DeadModel, ...],
        SOME,
        about("Messages that become dead letters. Any other dead letter fails the case."),
    ] = ()
    emitted: Annotated[tuple[EmittedModel, ...], SOME, about("Messages that handlers emit.")] = field(
        default_factory=tuple
    )
    rejected: Annotated[
        tuple[RejectedModel, ...],
        SOME,
        about("Messages that are refused when they are published. Any other refusal fails the case."),
    ] = ()
    skipped: Annotated[
        tuple[GotModel, ...],
        SOME,
        about("Messages that are settled without the handler, because of `when` or `on_invalid: drop`."),
    ] = ()
    nothing: Annotated[tuple[str, ...], SOME, about("Routes whose handlers must not be called.")] = field(
        default_factory=tuple
    )
