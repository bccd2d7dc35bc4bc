"""The language of `http`: where the HTTP server listens, and what each token allows."""

# Without `from __future__ import annotations`: pydantic would compile the text of each annotation.

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from abe_router.config.language.tests_model import OneOrMore, StrictModel
from abe_router.messages.pattern import MAX_KEY_LENGTH, PATTERN_FORM
from abe_router.routing.http_options import (
    ADDRESS_PATTERN,
    DEFAULT_LISTEN,
    DIGEST_PATTERN,
    HOST_PATTERN,
    NAME_PATTERN,
    ORIGIN_PATTERN,
    HttpOptions,
    ListenAddress,
    TokenOptions,
    parse_address,
)

_ANY_KEY = "#"


def _address(value: Any) -> ListenAddress:
    try:
        return parse_address(value if isinstance(value, str) else "")
    except ValueError:
        hint = f"write a host and a port, such as `{DEFAULT_LISTEN}` or `0.0.0.0:8471`"
        raise PydanticCustomError("http", "an address with a port", {"hint": hint}) from None


def _text(pattern: str, wanted: str, hint: str, *, longest: int = 300) -> Callable[[Any], str]:
    form = re.compile(pattern)

    def check(value: Any) -> str:
        if isinstance(value, str) and len(value) <= longest and form.fullmatch(value):
            return value
        raise PydanticCustomError("http", wanted, {"hint": hint})

    return check


def _form(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern})


Address = Annotated[Any, BeforeValidator(_address), _form(ADDRESS_PATTERN)]
_Host = Annotated[
    str,
    BeforeValidator(_text(HOST_PATTERN, "the name of a host", "write it without port: `router.example.com`")),
    _form(HOST_PATTERN),
]
_Origin = Annotated[
    str,
    BeforeValidator(
        _text(ORIGIN_PATTERN, "an origin", "write it as `https://ops.example.com`, without a path")
    ),
    _form(ORIGIN_PATTERN),
]
_Digest = Annotated[
    str | None,
    BeforeValidator(
        _text(DIGEST_PATTERN, "a SHA-256 hash in hexadecimal", "run `printf %s TOKEN | sha256sum`")
    ),
    _form(DIGEST_PATTERN),
]
_Keys = Annotated[
    str,
    BeforeValidator(
        _text(
            PATTERN_FORM, "a key or a pattern", "write a pattern such as `orders.#`", longest=MAX_KEY_LENGTH
        )
    ),
    _form(PATTERN_FORM),
]
_TokenName = Annotated[
    str, BeforeValidator(_text(NAME_PATTERN, "a name", "use letters, digits and `_.@-`, at most 64"))
]
_Role = Literal["viewer", "reader", "publisher", "operator", "admin"]


class TokenModel(StrictModel):
    """What the callers with one token may do."""

    sha256: _Digest = Field(None, description="The SHA-256 hash of the token, in hexadecimal.")
    file: str | None = Field(
        None, description="In place of `sha256`: a file that contains the token, or `sha256:` and its hash."
    )
    roles: Annotated[tuple[_Role, ...], OneOrMore(), Field(min_length=1)] = Field(
        description="One or more of `viewer`, `reader`, `publisher`, `operator` and `admin`.",
    )
    keys: Annotated[tuple[_Keys, ...], OneOrMore(), Field(min_length=1)] = Field(
        (_ANY_KEY,), description="The keys or patterns to which the roles are limited."
    )

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.sha256 is None) == (self.file is None):
            raise PydanticCustomError("http", "either `sha256` or `file`")
        return self


class HttpModel(StrictModel):
    """The HTTP server."""

    listen: Address = Field(
        DEFAULT_LISTEN,
        validate_default=True,
        description="The address of the API, with its port. Any but a loopback address needs `tokens`.",
    )
    probes: Address | None = Field(
        None,
        description="The address of a second listener. It has the probes and the metrics alone, and asks for"
        " no token.",
    )
    hosts: Annotated[tuple[_Host, ...], OneOrMore()] = Field(
        (),
        description="Names under which clients reach the server, such as `router.example.com` or"
        " `*.example.com`. Loopback names and IP addresses are always accepted.",
    )
    origins: Annotated[tuple[_Origin, ...], OneOrMore()] = Field(
        (), description="Other origins whose pages may send requests that change something."
    )
    tokens: dict[_TokenName, TokenModel] = Field(
        default_factory=dict,
        description="The tokens, by name. Without any, the server makes one at its start.",
    )
    republish: bool = Field(
        False, description="Allow to change a dead letter and publish it as a new message."
    )

    @model_validator(mode="after")
    def _has_tokens(self) -> Self:
        if not self.listen.is_loopback and not self.tokens:
            hint = f"add a token below `tokens`, or listen at `{DEFAULT_LISTEN}`"
            raise PydanticCustomError(
                "http", "`tokens`, because `listen` is not a loopback address", {"hint": hint}
            )
        return self

    def options(self, folder: Path) -> HttpOptions:
        """Return the options as a value. Files are relative to `folder`."""
        return HttpOptions(
            listen=self.listen,
            probes=self.probes,
            hosts=self.hosts,
            origins=self.origins,
            tokens=tuple(
                TokenOptions(
                    name, token.sha256, folder / token.file if token.file else None, token.roles, token.keys
                )
                for name, token in self.tokens.items()
            ),
            republish=self.republish,
        )
