"""The backend of the file: its absolute URL, and whether a provider accepts it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path
from urllib.parse import quote, unquote

from abe_router.backend import Features
from abe_router.backends import BUILT_IN, find_provider, providers
from abe_router.config.reading.code import Code
from abe_router.config.reading.faults import Faults, Span
from abe_router.config.reading.node import YamlNode
from abe_router.errors import BackendError
from abe_router.text import suggestion

_SQLITE = "sqlite:///"
#: The label of a fault of a backend that the file does not name.
_NOT_HERE = "not set in this file, but by ABE_ROUTER_BACKEND or the calling program"


def absolute(url: str, folder: Path) -> str:
    """Return the URL with the path of an SQLite file, which is relative to `folder`, made absolute."""
    path, question, query = url.removeprefix(_SQLITE).partition("?")
    if not url.startswith(_SQLITE) or not path or path.startswith((":", "/")):
        return url
    file = folder / unquote(path, errors="surrogateescape")
    whole = os.path.abspath(file)  # noqa: PTH100  a link may lead elsewhere tomorrow
    return f"{_SQLITE}{quote(os.fsencode(whole))}{question}{query}"


def features_of(url: str, prefix: str, node: YamlNode | None, faults: Faults) -> Features | None:
    """Return the features of the backend. If there is no such backend, add a fault and return None.

    `node` is the URL in the file, or None if the file does not name a backend.
    """
    span, label = (node.span, "") if node is not None else (Span(), _NOT_HERE)
    scheme, colon, _ = url.partition("://")
    known = BUILT_IN if scheme in BUILT_IN else providers()
    if not colon or scheme not in known:
        close = suggestion(scheme, known)
        like = _meant(url, known)
        installed = ", ".join(f"`{name}://`" for name in sorted(known))
        hint = f"did you mean `{close}://`?" if close else f"installed: {installed}"
        if not colon and like and node is not None and node.text == url:
            hint = f"did you mean `{like}`?"
        if node is not None and node.text.startswith(f"{scheme}://") and node.plain:
            span = span.part(0, len(scheme))
        named = f"the scheme `{scheme}://`" if colon else "a URL without `://`"
        faults.add(
            Code.BACKEND_UNKNOWN, f"no installed backend accepts {named}", span, label=label, hint=hint
        )
        return None
    try:
        provider = find_provider(url)
        provider.from_url(url, prefix=prefix)
    except BackendError as error:
        faults.add(Code.BACKEND_URL, str(error), span, label=label)
        return None
    except ValueError as error:
        message = f"the URL of the backend is malformed{_reason(error, url)}"
        faults.add(Code.BACKEND_URL, message, span, label=label)
        return None
    return provider.features


def _meant(url: str, known: Collection[str]) -> str:
    """Return the URL that a text without `://` most likely means, or an empty string."""
    scheme, _, rest = url.partition(":")
    if "@" in url:  # it may hold a password
        return ""
    if scheme in known and rest:
        return f"{scheme}://{'/' if scheme == 'sqlite' else ''}{rest.lstrip('/')}"
    if re.fullmatch(r"[A-Za-z0-9.-]+:[0-9]+(/[0-9]+)?", url):
        return f"redis://{url}"
    return f"sqlite:///{url}" if url.endswith((".db", ".sqlite", ".sqlite3")) else ""


def _reason(error: ValueError, url: str) -> str:
    """Return the reason that a provider gave, unless it quotes the URL's user name or password."""
    secrets = re.split(r"[:@/]", url.partition("://")[2].rpartition("@")[0])
    return "" if any(part and part in str(error) for part in secrets) else f": {error}"
