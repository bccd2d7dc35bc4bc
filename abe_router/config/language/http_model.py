"""The language of `http`: where the HTTP server listens, and what each token allows."""

# Without `from __future__ import annotations`: msgspec would compile the text of each annotation.

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET, UnsetType, field

from abe_router.config.language.forms import SOME, Model, Text, Unfit, about, choice
from abe_router.messages.pattern import MAX_KEY_LENGTH, PATTERN_FORM
from abe_router.routing.http_options import (
    ADDRESS_PATTERN,
    DEFAULT_LISTEN,
    DIGEST_PATTERN,
    HOST_PATTERN,
    NAME_PATTERN,
    ORIGIN_PATTERN,
    HttpOptions,
    TokenOptions,
    parse_address,
)


class ListenText(Text):
    """A host and a port."""

    __slots__ = ()
    schema: ClassVar[dict[str, Any]] = {"type": "string", "pattern": ADDRESS_PATTERN}

    @classmethod
    def check(cls, value: Any) -> None:  # noqa: D102  inherited
        try:
            parse_address(value if isinstance(value, str) else "")
        except ValueError:
            hint = f"write a host and a port, such as `{DEFAULT_LISTEN}` or `0.0.0.0:8471`"
            raise Unfit("an address with a port", hint) from None


class _Form(Text):
    """A text that a regular expression describes."""

    __slots__ = ()
    wanted: ClassVar[str]
    hint: ClassVar[str]
    longest: ClassVar[int] = 300

    @classmethod
    def check(cls, value: Any) -> None:
        pattern = cls.schema["pattern"]
        if not (isinstance(value, str) and len(value) <= cls.longest and re.fullmatch(pattern, value)):
            raise Unfit(cls.wanted, cls.hint)


class _Host(_Form):
    __slots__ = ()
    schema: ClassVar[dict[str, Any]] = {"type": "string", "pattern": HOST_PATTERN}
    wanted, hint = "the name of a host", "write it without port: `router.example.com`"


class _Origin(_Form):
    __slots__ = ()
    schema: ClassVar[dict[str, Any]] = {"type": "string", "pattern": ORIGIN_PATTERN}
    wanted, hint = "an origin", "write it as `https://ops.example.com`, without a path"


class _Digest(_Form):
    __slots__ = ()
    schema: ClassVar[dict[str, Any]] = {"type": "string", "pattern": DIGEST_PATTERN}
    wanted, hint = "a SHA-256 hash in hexadecimal", "run `printf %s TOKEN | sha256sum`"


class _Keys(_Form):
    __slots__ = ()
    schema: ClassVar[dict[str, Any]] = {"type": "string", "pattern": PATTERN_FORM}
    wanted, hint = "a key or a pattern", "write a pattern such as `orders.#`"
    longest = MAX_KEY_LENGTH


class _TokenName(_Form):
    __slots__ = ()
    schema: ClassVar[dict[str, Any]] = {"type": "string", "pattern": NAME_PATTERN}
    wanted, hint = "a name", "use letters, digits and `_.@-`, at most 64"


_Role = Literal["viewer", "reader", "publisher", "operator", "admin"]


class TokenModel(Model, frozen=True, kw_only=True):
    """What the callers with one token may do."""

    sha256: Annotated[_Digest | UnsetType, about("The SHA-256 hash of the token, in hexadecimal.")] = UNSET
    file: Annotated[
        str | None,
        about("In place of `sha256`: a file that contains the token, or `sha256:` and its hash."),
    ] = None
    roles: Annotated[
        tuple[Annotated[_Role, choice(_Role)], ...],
        SOME,
        about("One or more of `viewer`, `reader`, `publisher`, `operator` and `admin`."),
    ]
    keys: Annotated[
        tuple[_Keys, ...], SOME, about("The keys or patterns to which the roles are limited.")
    ] = (_Keys("#"),)

    def __post_init__(self) -> None:
        """Check that the token has one source."""
        if (self.sha256 is UNSET) == (self.file is None):
            raise Unfit("either `sha256` or `file`")


class HttpModel(Model, frozen=True, kw_only=True):
    """The HTTP server."""

    listen: Annotated[
        ListenText,
        about("The address of the API, with its port. Any but a loopback address needs `tokens`."),
    ] = ListenText(DEFAULT_LISTEN)
    probes: Annotated[
        ListenText | None,
        about(
            "The address of a second listener. It has the probes and the metrics alone, and asks for"
            " no token."
        ),
    ] = None
    hosts: Annotated[
        tuple[_Host, ...],
        about(
            "Names under which clients reach the server, such as `router.example.com` or"
            " `*.example.com`. Loopback names and IP addresses are always accepted."
        ),
    ] = ()
    origins: Annotated[
        tuple[_Origin, ...], about("Other origins whose pages may send requests that change something.")
    ] = ()
    tokens: Annotated[
        dict[_TokenName, TokenModel],
        about("The tokens, by name. Without any, the server makes one at its start."),
    ] = field(default_factory=dict)
    republish: Annotated[bool, about("Allow to change a dead letter and publish it as a new message.")] = (
        False
    )

    def __post_init__(self) -> None:
        """Check that there are tokens where others can connect."""
        if not parse_address(self.listen).is_loopback and not self.tokens:
            hint = f"add a token below `tokens`, or listen at `{DEFAULT_LISTEN}`"
            raise Unfit("`tokens`, because `listen` is not a loopback address", hint)

    def options(self, folder: Path) -> HttpOptions:
        """Return the options as a value. Files are relative to `folder`."""
        return HttpOptions(
            listen=parse_address(self.listen),
            probes=parse_address(self.probes) if self.probes else None,
            hosts=tuple(map(str, self.hosts)),
            origins=tuple(map(str, self.origins)),
            tokens=tuple(
                TokenOptions(
                    str(name),
                    str(token.sha256) if token.sha256 else None,
                    folder / token.file if token.file else None,
                    token.roles,
                    tuple(map(str, token.keys)),
                )
                for name, token in self.tokens.items()
            ),
            republish=self.republish,
        )
