"""The language of `tests`: cases that `abe-router test` runs in memory."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from abe_router.config.language.pointer import suggest_pointer
from abe_router.messages.pointer import is_pointer


class _OneOrMore:
    """Lets one value stand where a list of them may; with `short`, of each that member alone, as text."""

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
    if value is None:  # it would stand for anything, and so be met by anything
        raise PydanticCustomError("string_type", "text")
    return value


def _place(value: Any) -> Any:
    if isinstance(value, str) and value and not is_pointer(value):  # no payload is ever wrong there
        hint = f"write `{suggest_pointer(value) or '/total'}`"
        raise PydanticCustomError("pointer", "a JSON pointer", {"hint": hint})
    return _given(value)


_GIVEN = BeforeValidator(_given)
_Text = Annotated[str | None, _GIVEN]
_Kind = Literal["rejected", "failed", "timeout", "invalid", "malformed", "max_deliveries"]


class StrictModel(BaseModel):
    """A mapping of the file: unknown members are refused, and no value is converted to another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class WithPayload(StrictModel):
    """What may be said of a message."""

    payload: Any = Field(None, description="The payload, exactly.")
    containing: Any = Field(
        None, description="A part of the payload: its objects may have more members than are written."
    )


class _OfRoute(StrictModel):
    route: str = Field(description="The route, as `KEY/GROUP`.")


class _Why(StrictModel):
    at: Annotated[str | None, BeforeValidator(_place)] = Field(
        None, description="Where the payload is wrong, as a JSON pointer: `/total`."
    )
    keyword: _Text = Field(None, description="The keyword of the schema that it breaks.")
    error: _Text = Field(None, description="A part of the error's name and text.")


class PublishModel(StrictModel):
    """A message that a case publishes."""

    key: str = Field(description="The routing key.")
    payload: Any = Field(description="The payload; any JSON value.")
    headers: dict[str, str] = Field(default_factory=dict, description="The headers.")
    id: _Text = Field(None, description="The id; one of its own when absent.")
    unchecked: bool = Field(
        False, description="Put it past the schemas, as it may come from a program that does not know them."
    )


class GotModel(WithPayload, _OfRoute):
    """A message that a route handled or skipped."""


class DeadModel(_Why, WithPayload, _OfRoute):
    """A message that ended among the dead letters of a route."""

    kind: Annotated[_Kind | None, _GIVEN] = Field(
        None, description="Why: `rejected` or `failed` by the handler, `timeout`, `invalid`..."
    )


class EmittedModel(WithPayload):
    """A message that a handler's return value became."""

    key: str = Field(description="The routing key.")


class RejectedModel(_Why):
    """A message that is refused when it is published."""

    key: _Text = Field(None, description="The routing key; any when absent.")


class CaseModel(StrictModel):
    """One test: what is published, and what is expected to come of it."""

    publish: Annotated[tuple[PublishModel, ...], _OneOrMore(), Field(min_length=1)] = Field(
        description="The message to publish, or a list of them."
    )
    handled: Annotated[tuple[GotModel, ...], _OneOrMore("route"), Field(min_length=1)] = Field(
        default_factory=tuple, description="What is handled: the route, or one or more mappings."
    )
    dead: Annotated[tuple[DeadModel, ...], _OneOrMore("route"), Field(min_length=1)] = Field(
        default_factory=tuple,
        description="What ends among the dead letters; any other dead letter fails the case.",
    )
    emitted: Annotated[tuple[EmittedModel, ...], _OneOrMore("key"), Field(min_length=1)] = Field(
        default_factory=tuple, description="What handlers emit."
    )
    rejected: Annotated[tuple[RejectedModel, ...], _OneOrMore("at"), Field(min_length=1)] = Field(
        default_factory=tuple,
        description="What is refused at once, and where it is wrong; any other refusal fails the case.",
    )
    skipped: Annotated[tuple[GotModel, ...], _OneOrMore("route"), Field(min_length=1)] = Field(
        default_factory=tuple,
        description="What is settled without its handler, for `when` or `on_invalid: drop`.",
    )
    nothing: Annotated[tuple[str, ...], _OneOrMore(), Field(min_length=1)] = Field(
        default_factory=tuple, description="The routes whose handlers must not be called."
    )
