"""The tokens of a server: those of the routes file, or one that the server makes for its own machine."""

from __future__ import annotations

import logging
import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from abe_router.http.access import Caller, Role, Token, digest
from abe_router.routing.http_options import DIGEST_PATTERN, HttpOptions, TokenOptions

_log = logging.getLogger("abe_router.http")

#: The file of the token that a server makes, in the folder of the routes file.
TOKEN_FILE = ".abe-router.token"  # noqa: S105  a file name
#: The name of the caller with that token.
LOCAL = "local"
#: Longest file of a token, in bytes, and shortest token, in characters.
MAX_TOKEN_FILE, SHORTEST = 4_096, 16


def read_tokens(options: HttpOptions) -> tuple[Token, ...]:
    """Return the tokens of the routes file. A token whose file cannot be used is logged and left out."""
    found = ((token, _digest_of(token)) for token in options.tokens)
    return tuple(
        Token(value, Caller(token.name, frozenset(map(Role, token.roles)), token.keys))
        for token, value in found
        if value
    )


def token_files(options: HttpOptions | None) -> frozenset[Path]:
    """Return the files of tokens. A change of their content changes the tokens."""
    return frozenset(token.file for token in options.tokens if token.file) if options else frozenset()


def local_token(folder: Path) -> Token:
    """Return the token for the users of this machine that may read its file; make it if there is none.

    The file belongs to the user of the server, and only this user can read it. If it cannot be written, as
    in a container with a read-only folder, the token is valid until the server ends.
    """
    secret = _read_local(folder / TOKEN_FILE) or _write_local(folder / TOKEN_FILE)
    return Token(digest(secret), Caller(LOCAL, frozenset({Role.ADMIN})))


def _digest_of(token: TokenOptions) -> str | None:
    if token.file is None:
        return token.sha256
    try:
        with token.file.open("rb") as file:
            text = file.read(MAX_TOKEN_FILE).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        _log.error("token `%s` cannot be used: its file cannot be read: %s", token.name, error)
        return None
    if text.startswith("sha256:"):
        value = text.removeprefix("sha256:").strip()
        if re.fullmatch(DIGEST_PATTERN, value):
            return value
        _log.error("token `%s` cannot be used: its file has no SHA-256 hash in hexadecimal", token.name)
        return None
    if len(text) < SHORTEST:
        _log.error("token `%s` cannot be used: it is shorter than %d characters", token.name, SHORTEST)
        return None
    return digest(text)


def _read_local(path: Path) -> str | None:
    """Return the token of an earlier start, unless another user may know or have chosen it."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(handle) as file:
        found = os.fstat(handle)
        is_own = found.st_uid == os.getuid() and not found.st_mode & 0o077 and stat.S_ISREG(found.st_mode)
        text = file.read(MAX_TOKEN_FILE).strip() if is_own else ""
    return text if len(text) >= SHORTEST else None


def _write_local(path: Path) -> str:
    secret = secrets.token_urlsafe(32)
    try:
        with suppress(FileNotFoundError):
            path.unlink()
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(f"{secret}\n")
    except OSError as error:
        _log.warning("the token of the HTTP server cannot be kept in a file: %s", error)
    return secret
