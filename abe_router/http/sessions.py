"""The sessions of browsers that have logged in: in memory, and in the backend, so that a restart ends none.

The backend has the SHA-256 hash of each session, never the session itself. A value proves the token that the
session belongs to: it is a hash of both, so a reader of the backend learns neither. Entries expire there.

States of a session here: *stored* (the backend has it), *own* (the backend could not store it, so it ends
with this server), and *unknown*. A stored one is looked up again every `CHECK_EVERY` seconds, so a logout at
another server ends it here too. While the backend does not answer, what is known counts.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256

import msgspec

from abe_router.backend import Backend, Entry, read_stored
from abe_router.errors import BackendError
from abe_router.http.access import Caller, Token, digest

#: The bucket of the sessions.
SESSIONS = "sessions"
#: How long a session lasts, in seconds, and how many there are; the oldest one ends first.
SESSION_TIME, MOST_SESSIONS = 12 * 3600.0, 1_000
#: How often a stored session is looked up again, and how long the backend may take, in seconds.
CHECK_EVERY, PATIENCE = 30.0, 2.0
#: Unknown sessions that are looked up in a second: strangers can send any.
LOOK_UPS = 20


class StoredSession(msgspec.Struct, frozen=True):
    """A session as the backend has it: what proves its token, and its end in seconds since the epoch."""

    proof: str
    until: float


@dataclass(frozen=True, slots=True)
class _KnownSession:
    stored: StoredSession
    is_stored: bool
    checked_at: float


class Sessions:
    """The sessions of one server. `backend` returns the backend, None if there is none."""

    def __init__(self, backend: Callable[[], Backend] | None) -> None:
        self._backend = backend
        self._known: dict[str, _KnownSession] = {}
        #: The second of the last look-up of an unknown session, and how many there were in it.
        self._second, self._look_ups = 0, 0

    async def begin(self, token: Token) -> str:
        """Return a new session of a token."""
        session = secrets.token_urlsafe(32)
        stored = StoredSession(_proof(session, token), time.time() + SESSION_TIME)
        is_stored = await self._keep(digest(session), stored)
        self._remember(digest(session), _KnownSession(stored, is_stored, time.monotonic()))
        return session

    async def recall(self, session: str) -> None:
        """Look a session up in the backend, if it is not known here, or has not been looked up lately."""
        name = digest(session)
        known = self._known.get(name)
        now = time.monotonic()
        if known is not None and (not known.is_stored or now < known.checked_at + CHECK_EVERY):
            return
        if known is not None:
            self._known[name] = replace(known, checked_at=now)  # so that others do not look too
        elif not self._may_look_up(now):
            return
        try:
            async with asyncio.timeout(PATIENCE):
                backend = self._store()
                entry = await backend.get(SESSIONS, name) if backend else None
        except (BackendError, TimeoutError):
            return
        stored = entry and read_stored(entry.value, StoredSession)
        if stored:
            self._remember(name, _KnownSession(stored, True, now))
        else:
            self._known.pop(name, None)

    def caller(self, session: str, tokens: Sequence[Token]) -> Caller | None:
        """Return the caller of a session, None if it is unknown or has ended, or its token is gone."""
        known = self._known.get(digest(session))
        if known is None or time.time() > known.stored.until:
            return None
        proofs = (
            (secrets.compare_digest(known.stored.proof, _proof(session, each)), each) for each in tokens
        )
        return next((token.caller for is_owner, token in proofs if is_owner), None)

    async def end(self, session: str) -> None:
        """End a session, here and in the backend; if that fails, its entry expires there."""
        known = self._known.pop(digest(session), None)
        if known is not None and known.is_stored:
            with suppress(BackendError, TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    if backend := self._store():
                        await backend.delete(SESSIONS, digest(session))

    async def _keep(self, name: str, stored: StoredSession) -> bool:
        """Store a session, and delete the oldest ones if there are too many; return whether it is stored."""
        try:
            async with asyncio.timeout(PATIENCE):
                if (backend := self._store()) is None:
                    return False
                entries = await backend.entries(SESSIONS)
                oldest_first = sorted(entries, key=lambda each: _end_of(entries[each]))
                for oldest in oldest_first[: max(0, len(entries) - MOST_SESSIONS + 1)]:
                    await backend.delete(SESSIONS, oldest)
                return bool(await backend.put(SESSIONS, name, msgspec.json.encode(stored), ttl=SESSION_TIME))
        except (BackendError, TimeoutError):
            return False

    def _remember(self, name: str, known: _KnownSession) -> None:
        while len(self._known) >= MOST_SESSIONS:
            del self._known[next(iter(self._known))]
        self._known[name] = known

    def _store(self) -> Backend | None:
        """Return the backend if it has a key-value store."""
        backend = self._backend() if self._backend else None
        return backend if backend is not None and backend.features.key_value else None

    def _may_look_up(self, now: float) -> bool:
        if self._second != int(now):
            self._second, self._look_ups = int(now), 0
        self._look_ups += 1
        return self._look_ups <= LOOK_UPS


def _end_of(entry: Entry) -> float:
    stored = read_stored(entry.value, StoredSession)
    return stored.until if stored else 0.0


def _proof(session: str, token: Token) -> str:
    """Return what proves that a session belongs to a token."""
    return sha256(f"{session}:{token.digest}".encode()).hexdigest()
