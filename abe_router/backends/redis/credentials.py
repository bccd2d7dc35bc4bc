"""The credentials of the connections: those of the URL, or those of a credential provider.

A credential provider is a class of the `redis` package, whose documentation calls it `CredentialProvider`.
It is asked at each connect, so short-lived tokens of a cloud work. One that streams
(`StreamingCredentialProvider`) hands out new tokens by itself, and the connections log in again without
reconnecting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Generator
from pkgutil import resolve_name
from typing import Any, Protocol

from abe_router.backends.redis.address import Address
from abe_router.errors import BackendError, BackendUnavailable

_log = logging.getLogger(__name__)


class Authenticated(Protocol):
    """A connection that can log in again."""

    def authenticate(self, credentials: tuple[str, ...]) -> None:
        """Log in with the arguments of AUTH."""


class Credentials:
    """Answers what a connection logs in with; the provider is loaded at the first connect."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._provider: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connections: set[Authenticated] = set()
        #: The last ones that a streaming provider handed out.
        self.latest: tuple[str, ...] = ()
        #: What `get` returned last.
        self._last: tuple[str, ...] = ()

    @property
    def change(self) -> bool:
        """Whether later credentials may differ from earlier ones."""
        return bool(self._address.credential_provider)

    def add(self, connection: Authenticated) -> None:
        """Let a connection log in again when there are new credentials."""
        self._connections.add(connection)

    def remove(self, connection: Authenticated) -> None:
        """Forget a connection."""
        self._connections.discard(connection)

    async def get(self) -> tuple[str, ...]:
        """Return the arguments of AUTH, none without a password.

        Raise BackendError when the provider cannot be loaded, and BackendUnavailable when it fails.
        """
        address = self._address
        if not address.credential_provider:
            return self._of_url()
        self._loop = asyncio.get_running_loop()
        if self._provider is None:
            self._provider = self._load(address.credential_provider)
        try:
            async with asyncio.timeout(address.connect_timeout):
                found = await _ask(self._provider)
        except TimeoutError:
            raise BackendUnavailable("the credential provider does not answer") from None
        except Exception as error:
            raise BackendUnavailable(f"the credential provider failed: {type(error).__name__}") from error
        self._last = tuple(part for part in found if part)
        return self._last

    def get_blocking(self) -> tuple[str, ...]:
        """Return the arguments of AUTH in a thread, while the event loop is blocked.

        A provider that has only the blocking method is asked. From another one, the latest answer counts.
        """
        provider = self._provider
        if provider is None or not _is_blocking(provider):
            return self.latest or self._last or self._of_url()
        try:
            return tuple(part for part in provider.get_credentials() if part)
        except Exception as error:
            raise BackendUnavailable(f"the credential provider failed: {type(error).__name__}") from error

    def _of_url(self) -> tuple[str, ...]:
        address = self._address
        if not address.password:
            return ()
        return (address.username, address.password) if address.username else (address.password,)

    def _load(self, path: str) -> Any:
        from redis.credentials import CredentialProvider, StreamingCredentialProvider

        try:
            found = resolve_name(path)
            provider = found if isinstance(found, CredentialProvider) else found()
        except Exception as error:
            raise BackendError(f"credential provider `{path}` cannot be loaded: {error!r}") from error
        if not isinstance(provider, CredentialProvider):
            raise BackendError(f"`{path}` is not a CredentialProvider of the `redis` package")
        if isinstance(provider, StreamingCredentialProvider):
            # Their annotations allow functions without a result, their callers await what they return.
            provider.on_next(self._on_token)  # type: ignore[arg-type]
            provider.on_error(self._on_error)  # type: ignore[arg-type]
        return provider

    # A provider calls these in the event loop, and awaits what they return, or in a thread of its own.

    def _on_token(self, token: Any) -> Awaitable[None]:
        user, password = token.try_get("oid"), token.get_value()
        credentials = (user, password) if user else (password,)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._authenticate, credentials)
        return _Done()

    def _on_error(self, error: Exception) -> Awaitable[None]:
        _log.warning("the credential provider has no new token: %s", type(error).__name__)
        return _Done()

    def _authenticate(self, credentials: tuple[str, ...]) -> None:
        self.latest = credentials
        for connection in tuple(self._connections):
            connection.authenticate(credentials)


class _Done:
    """An awaitable that is done; unlike a coroutine it need not be awaited."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


def _is_blocking(provider: Any) -> bool:
    """Return whether a provider has only the blocking method, which may ask a server."""
    from redis.credentials import CredentialProvider

    return type(provider).get_credentials_async is CredentialProvider.get_credentials_async


async def _ask(provider: Any) -> tuple[str, ...]:
    if _is_blocking(provider):
        found: tuple[str, ...] = await asyncio.to_thread(provider.get_credentials)
    else:
        found = await provider.get_credentials_async()
    return found
