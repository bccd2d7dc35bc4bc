"""The language of `tests`: cases that `abe-router test` runs in memory."""

# Without `from __future__ import annotations`: pydantic would compile the text of each annotation.

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from abe_router.config.language.pointer import suggest_pointer
from abe_router.messages.pointer import is_pointer


class OneOrMore:
    """Accepts one value in place of a list. With `short`, a text stands for a mapping with that member."""

    def __init__(self, short: str = "") -> None:
        self._short = short

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._many, handler(source))

    def _many(self, value: Any) -> Any:
        items = value if isinstance(value, list) else [value]
        short = self._short
        return tuple({short: item} if short and isinstance(item, str) else item for item in items)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        item = handler(schema)["items"]
        forms = [{"type": "string"}, item] if self._short else [item]
        items = {"anyOf": forms} if self._short else item
        return {"anyOf": [*forms, {"type": "array", "items": items, "minItems": 1}]}


def _given(value: Any) -> Any:
    if value is None:  # any message would meet this expectation
        raise PydanticCustomError("string_type", "text")
    return value


def _pointer(value: Any) -> Any:
    if isinstance(value, str) and value and not is_pointer(value):  # no payload can be wrong there
        hint = f"write `{suggest_pointer(value) or '/total'}`"
        raise PydanticCustomError("pointer", "a JSON pointer", {"hint": hint})
    return _given(value)


_GIVEN = BeforeValidator(_given)
_Text = Annotated[str | None, _GIVEN]
_Kind = Literal["rejected", "failed", "timeout", "invalid", "malformed", "max_deliveries"]


class StrictModel(BaseModel):
    """A mapping of the file: unknown members are refused, and no value is converted to another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class WithPayload(StrictModel):
    """What a test can expect of a payload."""

    payload: Any = Field(None, description="The exact payload.")
    containing: Any = Field(None, description="A part of the payload. Its objects may have further members.")


class _OfRoute(StrictModel):
    route: str = Field(description="The route, as `KEY/GROUP`.")


class _Why(StrictModel):
    at: Annotated[str | None, BeforeValidator(_pointer)] = Field(
        None, description="A JSON pointer to the value that breaks the schema, such as `/total`."
    )
    keyword: _Text = Field(None, description="The keyword of the schema that the payload breaks.")
    error: _Text = Field(None, description="A part of the name and text of the error.")


class PublishModel(StrictModel):
    """A message that a case publishes."""

    key: str = Field(description="The routing key.")
    payload: Any = Field(description="The payload: any JSON value.")
    headers: dict[str, str] = Field(default_factory=dict, description="The headers.")
    id: _Text = Field(None, description="The id. Without it, the message gets a new one.")
    unchecked: bool = Field(
        False, description="Publish without checking the schemas, as a program that does not use them could."
    )


class GotModel(WithPayload, _OfRoute):
    """A message that a route handled or skipped."""


class DeadModel(_Why, WithPayload, _OfRoute):
    """A message that became a dead letter of a route."""

    kind: Annotated[_Kind | None, _GIVEN] = Field(
        None,
        description="The reason: `rejected` or `failed` (by the handler), `timeout`, `invalid`,"
        " `malformed` or"
        " `max_deliveries`.",
    )


class EmittedModel(WithPayload):
    """A message that a handler emitted."""

    key: str = Field(description="The routing key.")


class RejectedModel(_Why):
    """A message that is refused when it is published."""

    key: _Text = Field(None, description="The routing key. Without it, any key.")


class CaseModel(StrictModel):
    """One test: what is published, and what is expected to happen."""

    publish: Annotated[tuple[PublishModel, ...], OneOrMore(), Field(min_length=1)] = Field(
        description="The message to publish, or a list of them."
    )
    handled: Annotated[tuple[GotModel, ...], OneOrMore("route"), Field(min_length=1)] = Field(
        default_factory=tuple,
        description="Messages that are handled: the name of a route, or one or more mappings.",
    )
    dead: Annotated[tuple[DeadModel, ...], OneOrMore("route"), Field(min_length=1)] = Field(
        default_factory=tuple,
        description="Messages that become dead letters. Any other dead letter fails the case.",
    )
    emitted: Annotated[tuple[EmittedModel, ...], OneOrMore("key"), Field(min_length=1)] = Field(
        default_factory=tuple, description="Messages that handlers emit."
    )
    rejected: Annotated[tuple[RejectedModel, ...], OneOrMore("at"), Field(min_length=1)] = Field(
        default_factory=tuple,
        description="Messages that are refused when they are published. Any other refusal fails the case.",
    )
    skipped: Annotated[tuple[GotModel, ...], OneOrMore("route"), Field(min_length=1)] = Field(
        default_factory=tuple,
        description="Messages that are settled without the handler, because of `when` or `on_invalid: drop`.",
    )
    nothing: Annotated[tuple[str, ...], OneOrMore(), Field(min_length=1)] = Field(
        default_factory=tuple, description="Routes whose handlers must not be called."
    )
