"""The rules that hold before any endpoint: the host, the origin, and the sender of a request."""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Callable, Mapping, Sequence

from abe_router.backend import Backend
from abe_router.http.access import Caller, Token, digest, find_token
from abe_router.http.problem import Refusal, invalid
from abe_router.http.sessions import Sessions
from abe_router.routing.http_options import is_loopback

#: Methods that change nothing.
SAFE = {"GET", "HEAD", "OPTIONS"}
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:[0-9]{1,5})?")
_SESSION = re.compile(r"[A-Za-z0-9_-]{43}")
_CREDENTIALS = re.compile(r"(?i)(^|&)(access_token|token|auth|authorization|api_?key|password|secret)=")
#: A name as text, and all values of each header.
Headers = Mapping[str, Sequence[str]]


class Security:
    """Decides whether a request is answered at all, and for which caller.

    `hosts`, `origins` and `tokens` change when the routes file changes. A session belongs to a token, and
    ends with it. `backend` returns the backend that keeps the sessions.
    """

    def __init__(
        self,
        tokens: Sequence[Token] = (),
        *,
        hosts: Sequence[str] = (),
        origins: Sequence[str] = (),
        backend: Callable[[], Backend] | None = None,
    ) -> None:
        self._sessions = Sessions(backend)
        #: The secret of the link that the start prints. It logs in one browser.
        self.login_code = secrets.token_urlsafe(32)
        self.update(tokens, hosts=hosts, origins=origins)

    def update(
        self, tokens: Sequence[Token], *, hosts: Sequence[str] = (), origins: Sequence[str] = ()
    ) -> None:
        """Replace what is configured."""
        self._tokens = tuple(tokens)
        self._hosts = tuple(host.lower() for host in hosts)
        self._origins = frozenset(origin.lower() for origin in origins)

    def check_host(self, headers: Headers) -> str:
        """Return the host of a request, without its port; raise Refusal if a stranger may have named it.

        A page of a stranger can let its own name point to this machine ("DNS rebinding"). Its requests carry
        that name. They cannot carry a loopback name or an IP address.
        """
        given = headers.get("host", ())
        match = _HOST.fullmatch(given[0].lower()) if len(given) == 1 else None
        if match is None:
            raise invalid("it needs one valid Host header")
        host = match[1].removeprefix("[").removesuffix("]")
        if is_loopback(host) or _is_address(host) or any(_fits(host, known) for known in self._hosts):
            return host
        raise Refusal(
            421,
            "unknown-host",
            "The server is not known by this name",
            "the Host header is neither a loopback name, nor an IP address, nor in `http.hosts`",
        )

    async def recall(self, headers: Headers) -> None:
        """Look up the session of a request, if another server or an earlier start of this one began it."""
        for session in _sessions(headers):
            await self._sessions.recall(session)

    def find_caller(self, method: str, headers: Headers, query: str) -> Caller | None:
        """Return the caller of a request, None if it has neither a token nor a session. `recall` it before.

        Raise Refusal if the token is unknown, or if a page of another origin sends the request.
        """
        if _CREDENTIALS.search(query):
            raise Refusal(
                400,
                "token-in-url",
                "The URL contains a token",
                "URLs are logged on their way: send `Authorization: Bearer TOKEN`, and replace this token",
            )
        from_browser = self._check_origin(method, headers)
        given = headers.get("authorization", ())
        if given:
            scheme, _, secret = given[0].partition(" ")
            token = find_token(self._tokens, secret.strip()) if scheme.lower() == "bearer" else None
            if token is None or len(given) > 1:
                raise unauthorized("the token is unknown, or the Authorization header is not `Bearer TOKEN`")
            return token.caller
        # Without a sign of a browser, a cookie is no proof of what its user wants.
        if method in SAFE or from_browser:
            found = (self._sessions.caller(session, self._tokens) for session in _sessions(headers))
            return next(filter(None, found), None)
        return None

    async def log_in(self, secret: str) -> str | None:
        """Return the value of the cookie for a new session of a token, or of the code of the link."""
        if self.login_code and secrets.compare_digest(digest(secret), digest(self.login_code)):
            if not self._tokens:
                return None
            token: Token | None = self._tokens[0]
            self.login_code = ""
        else:
            token = find_token(self._tokens, secret)
        if token is None:
            return None
        return await self._sessions.begin(token)

    async def log_out(self, headers: Headers) -> None:
        """End the session of a request."""
        for session in _sessions(headers):
            await self._sessions.end(session)

    def _check_origin(self, method: str, headers: Headers) -> bool:
        """Return whether a browser sends the request, for a page of this server or of a trusted origin.

        Raise Refusal if another page does. The rules are those of `http.CrossOriginProtection` of Go 1.25.
        Browsers do not send Sec-Fetch-Site over plain HTTP to other machines, but they send Origin.
        """
        if method in SAFE:
            return False
        origin = headers.get("origin", ("",))[0].lower()
        if origin and origin in self._origins:
            return True
        site = headers.get("sec-fetch-site", ("",))[0].lower()
        if site in ("same-origin", "none"):
            return True
        if not site and not origin:
            return False
        host = headers.get("host", ("",))[0].lower()
        if not site and origin.partition("://")[2] == host:
            return True
        raise Refusal(
            403,
            "cross-origin",
            "A page of another origin sends the request",
            "add its origin to `http.origins`, if it is yours",
        )


def unauthorized(detail: str) -> Refusal:
    """Return the refusal of a request whose sender is not known."""
    return Refusal(401, "unauthorized", "A token is needed", detail, headers={"WWW-Authenticate": "Bearer"})


def cookie_name(headers: Headers) -> str:
    """Return the name of the cookie of a session. Two servers of one host have different ports."""
    match = _HOST.fullmatch(headers.get("host", ("",))[0].lower())
    port = match[2][1:] if match and match[2] else "default"
    return f"abe-router-session-{port}"


def cookie_values(headers: Headers, wanted: str) -> list[str]:
    """Return the values of all cookies of a name. Other programs of the host may have set some of them.

    Each part between semicolons is one cookie, whatever it contains, as RFC 6265 tells browsers to read them.
    """
    pairs = (part.partition("=") for text in headers.get("cookie", ()) for part in text.split(";"))
    return [value.strip() for name, _, value in pairs if name.strip() == wanted]


def is_secure(scheme: str, headers: Headers) -> bool:
    """Return whether the client of a request uses TLS, so that a cookie can be `Secure`.

    A proxy that ends TLS says so, and so does the browser by its origin. A client that lies about it gets a
    cookie that it does not send back, so no sender has to be trusted.
    """
    origin, forwarded = (headers.get(name, ("",))[0].lower() for name in ("origin", "x-forwarded-proto"))
    return "https" in (scheme, origin.partition("://")[0], forwarded.partition(",")[0].strip())


def _sessions(headers: Headers) -> list[str]:
    """Return the sessions in the cookies of a request."""
    return [each for each in cookie_values(headers, cookie_name(headers)) if _SESSION.fullmatch(each)]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _fits(host: str, known: str) -> bool:
    return host.endswith(known[1:]) if known.startswith("*.") else host == known
