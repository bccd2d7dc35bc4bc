"""Finds the provider of a backend by its URL."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points

from abe_router.backend import Backend
from abe_router.errors import BackendError, UnknownProvider

#: The entry-point group in which providers register, under their URL schemes.
GROUP = "abe_router.backends"

#: Our own, found even where the package's metadata is missing, as in a plain source tree.
_BUILT_IN = (
    EntryPoint("memory", "abe_router.backends.memory:MemoryBackend", GROUP),
    EntryPoint("sqlite", "abe_router.backends.sqlite:SQLiteBackend", GROUP),
    EntryPoint("redis", "abe_router.backends.redis:RedisBackend", GROUP),
    EntryPoint("rediss", "abe_router.backends.redis:RedisBackend", GROUP),
    EntryPoint("unix", "abe_router.backends.redis:RedisBackend", GROUP),
)


def providers() -> dict[str, EntryPoint]:
    """Return the entry points of the installed providers, by URL scheme."""
    return {point.name: point for point in (*_BUILT_IN, *entry_points(group=GROUP))}


def find_provider(url: str, known: Iterable[EntryPoint] = ()) -> type[Backend]:
    """Return the provider class for a URL; raise UnknownProvider or BackendError.

    `known` are entry points that take precedence over the installed ones.
    """
    scheme = url.partition(":")[0]
    found = {**providers(), **{point.name: point for point in known}}
    if scheme not in found or "://" not in url:
        close = get_close_matches(scheme, found, 1)
        mean = f"; did you mean `{close[0]}://`?" if close else ""
        named = ", ".join(f"{name}://" for name in sorted(found))
        raise UnknownProvider(f"no backend provider for `{redact(url)}`{mean} (installed: {named})")
    try:
        provider = found[scheme].load()
    except Exception as error:
        raise BackendError(
            f"provider `{scheme}` ({found[scheme].value}) cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not (isinstance(provider, type) and issubclass(provider, Backend)):
        raise BackendError(f"provider `{scheme}` ({found[scheme].value}) is not a Backend class")
    return provider


def make_backend(url: str, *, prefix: str = "") -> Backend:
    """Make the backend of a URL, without connecting; raise BackendError when that is impossible."""
    provider = find_provider(url)
    try:
        return provider.from_url(url, prefix=prefix)
    except ValueError as error:
        raise BackendError(f"backend URL `{redact(url)}` is malformed: {error}") from error


def redact(url: str) -> str:
    """Return the URL without user name, password and query, fit for a log or a message."""
    without_query = url.partition("?")[0]
    return re.sub(r"//.*@", "//***@", without_query)
