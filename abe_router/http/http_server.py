"""The HTTP server of one process: its listeners, and what becomes of them after an edit of the file."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from abe_router.files.watch import Fingerprint, fingerprint
from abe_router.http.access import Token
from abe_router.http.app import make_app, make_probes_app
from abe_router.http.guard import Application, Receive, Scope, Send
from abe_router.http.listener import Listener, bind
from abe_router.http.security import Security
from abe_router.http.site import HttpSource, Site
from abe_router.http.tokens import TOKEN_FILE, local_token, read_tokens, token_files
from abe_router.operations.errors import OperationError
from abe_router.routing.http_options import DEFAULT_LISTEN, HttpOptions, ListenAddress, parse_address

_log = logging.getLogger("abe_router.http")

#: Interval at which the options and the files of tokens are compared, in seconds.
COMPARE_EVERY = 0.5


class ListenRefused(OperationError):
    """Raised when the server cannot listen: the address is in use, or it needs tokens."""


class HttpServer:
    """Serves a source at the addresses of its table, from entering to leaving.

    `listen` takes precedence over the address of the file. Without `probes`, there is no second listener. A
    change of the options in the file, or of the file of a token, takes effect within a second. A change that
    is refused is logged, and the former options stay in force. With `always`, a file without options means
    the default ones; otherwise the caller ends the server then. If no token is configured, `announce` gets a
    link that logs in one browser.
    """

    def __init__(
        self,
        source: HttpSource,
        *,
        listen: ListenAddress | None = None,
        probes: bool = True,
        always: bool = False,
        announce: Callable[[str], None] | None = None,
    ) -> None:
        self._source, self._listen, self._announce = source, listen, announce
        self._has_probes, self._always = probes, always
        self._site = Site(source, Security(backend=lambda: source.backend))
        self._app, self._probes_app = make_app(self._site), make_probes_app(self._site)
        self._listeners: dict[str, tuple[ListenAddress, Listener]] = {}
        self._options: HttpOptions | None = None
        self._seen: Fingerprint = {}
        self._local: Token | None = None
        self._is_announced = False
        self._following: asyncio.Task[None] | None = None

    @property
    def address(self) -> ListenAddress:
        """Where the API is, with the port that the system chose for port 0."""
        return self._listeners["api"][1].address

    @property
    def probes_address(self) -> ListenAddress | None:
        """Where the second listener is, if there is one."""
        found = self._listeners.get("probes")
        return found[1].address if found else None

    async def __aenter__(self) -> Self:
        """Listen; raise ListenRefused if that is not possible."""
        try:
            await self._apply()
        except BaseException:
            await self._stop_listeners()
            raise
        self._site.start()
        self._following = asyncio.create_task(self._follow(), name="http options")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._following is not None:
            self._following.cancel()
            with suppress(asyncio.CancelledError):
                await self._following
        await self._stop_listeners()

    async def _stop_listeners(self) -> None:
        self._site.closing.set()
        await self._site.close()
        await asyncio.gather(*(listener.stop() for _, listener in self._listeners.values()))

    async def _follow(self) -> None:
        refused: object = None
        while True:
            await asyncio.sleep(COMPARE_EVERY)
            options = self._source.table.http
            now = (options, fingerprint(token_files(options)))
            if options is None and not self._always:
                continue
            if now in ((self._options, self._seen), refused):
                continue
            try:
                await self._apply()
                refused = None
            except ListenRefused as error:
                refused = now
                _log.error("the options of the HTTP server stay as they were: %s", error)
            except Exception:  # noqa: BLE001  the next edit may be applied
                refused = now
                _log.exception("the options of the HTTP server cannot be changed")

    async def _apply(self) -> None:
        """Put the options of the table into force."""
        options = self._source.table.http
        seen = fingerprint(token_files(options))
        given = options or HttpOptions(parse_address(DEFAULT_LISTEN))
        listen = self._listen or given.listen
        tokens = read_tokens(given)
        if not listen.is_loopback and not given.tokens:
            raise ListenRefused(
                f"every host of the network can reach {listen}, and no token is configured",
                hint="add a token below `http.tokens` in the routes file",
            )
        wanted = {"api": listen, "probes": given.probes if self._has_probes else None}
        moved = {name: address for name, address in wanted.items() if address != self._address_of(name)}
        sockets = _bind_all(moved)
        # The rights change before a new listener answers.
        if not given.tokens:
            tokens = (self._local_token(),)
        self._site.security.update(tokens, hosts=given.hosts, origins=given.origins)
        for name, address in moved.items():
            await self._move(name, address, sockets.get(name))
        if not given.tokens:
            self._announce_login()
        self._options, self._seen = options, seen

    def _address_of(self, name: str) -> ListenAddress | None:
        """Return the address that was asked for; its port may be 0."""
        found = self._listeners.get(name)
        return found[0] if found else None

    async def _move(self, name: str, address: ListenAddress | None, sock: socket.socket | None) -> None:
        """Move a listener: the new one listens before the former one ends."""
        former = self._listeners.pop(name, None)
        if address is not None and sock is not None:
            listener = Listener(self._app if name == "api" else self._probes_app, sock)
            await listener.start()
            self._listeners[name] = (address, listener)
            _log.info("the %s listens at http://%s", _NAMES[name], listener.address)
        if former is not None:
            await former[1].stop()

    def _local_token(self) -> Token:
        """Return the token of this machine."""
        if self._local is None:
            self._local = local_token(self._folder)
        return self._local

    def _announce_login(self) -> None:
        """Announce the link that logs in a browser, once. It contains a secret, so it is not logged."""
        if self._is_announced:
            return
        self._is_announced = True
        if self._announce is not None:
            self._announce(f"http://{self.address}/login?code={self._site.security.login_code}")
        _log.info("the token of the HTTP server is in %s", self._folder / TOKEN_FILE)

    @property
    def _folder(self) -> Path:
        path = self._source.table.path
        return path.parent if path else Path.cwd()


def embedded_app(source: HttpSource) -> Application:
    """Return the API as an ASGI application that another one mounts.

    Its options are those of the routes file, without the addresses. An edit of them takes effect with the
    next request.
    """
    site = Site(source, Security(backend=lambda: source.backend))
    application = make_app(site)
    seen: list[object] = []

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if not seen:
            site.start()
        options = source.table.http
        now = [options, fingerprint(token_files(options))]
        if now != seen:
            given = options or HttpOptions(parse_address(DEFAULT_LISTEN))
            path = source.table.path
            local = () if given.tokens else (local_token(path.parent if path else Path.cwd()),)
            site.security.update(read_tokens(given) or local, hosts=given.hosts, origins=given.origins)
            seen[:] = now
        await application(scope, receive, send)

    return serve


def _bind_all(addresses: Mapping[str, ListenAddress | None]) -> dict[str, socket.socket]:
    """Return a socket for each address; raise ListenRefused, and keep none, if one cannot be used."""
    sockets: dict[str, socket.socket] = {}
    for name, address in addresses.items():
        if address is None:
            continue
        try:
            sockets[name] = bind(address)
        except OSError as error:
            for sock in sockets.values():
                sock.close()
            raise ListenRefused(f"cannot listen at {address}: {error.strerror or error}") from None
    return sockets


_NAMES = {"api": "HTTP server", "probes": "second listener, for probes and metrics,"}
