"""The choice of the backend: its absolute URL, what chose it, and whether a provider accepts it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from abe_router.backend import Features
from abe_router.backends import BUILT_IN, find_provider, named_url, providers
from abe_router.config.reading.code import Code
from abe_router.config.reading.faults import Faults, Span
from abe_router.config.reading.node import YamlNode
from abe_router.errors import BackendError
from abe_router.text import suggestion

_SQLITE = "sqlite:///"
#: The backend of a file that names none, if nothing else does.
DEFAULT_BACKEND = "sqlite:///.abe-router.db"
#: The variable that chooses the backend, unless an argument does.
VARIABLE = "ABE_ROUTER_BACKEND"
#: What can choose the backend, in this order.
ARGUMENT, ENVIRONMENT, FILE, DEFAULT = "the argument", f"${VARIABLE}", "the file", "default"


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """The URL of the backend, with an absolute path, and what chose it."""

    url: str
    chosen_by: str

    @property
    def overrides_file(self) -> bool:
        """Whether it is the backend whatever the file says."""
        return self.chosen_by in (ARGUMENT, ENVIRONMENT)


def choose_backend(
    argument: str | None, in_file: str | None, folder: Path, env: Mapping[str, str] = os.environ
) -> BackendChoice:
    """Return the backend: that of the argument, else of `$ABE_ROUTER_BACKEND`, else of the file.

    This is the only place that chooses. Each of them is a URL, or the name of a provider, which stands for
    what its own variables say, such as `REDIS_URL`. A relative path counts from `folder`, that of the routes
    file.
    """
    given = ((argument, ARGUMENT), (env.get(VARIABLE) or None, ENVIRONMENT), (in_file, FILE))
    url, chosen_by = next(((url, by) for url, by in given if url is not None), (DEFAULT_BACKEND, DEFAULT))
    return BackendChoice(_absolute(named_url(url, env), folder), chosen_by)


def _absolute(url: str, folder: Path) -> str:
    """Return the URL with the path of an SQLite file, which is relative to `folder`, made absolute."""
    path, question, query = url.removeprefix(_SQLITE).partition("?")
    if not url.startswith(_SQLITE) or not path or path.startswith((":", "/")):
        return url
    file = folder / unquote(path, errors="surrogateescape")
    whole = os.path.abspath(file)  # noqa: PTH100  a link may lead elsewhere tomorrow
    return f"{_SQLITE}{quote(os.fsencode(whole))}{question}{query}"


def features_of(choice: BackendChoice, prefix: str, node: YamlNode | None, faults: Faults) -> Features | None:
    """Return the features of the backend. If there is no such backend, add a fault and return None.

    `node` is the URL in the file, or None if something else chose the backend.
    """
    url, not_here = choice.url, f"not set in this file, but by {choice.chosen_by}"
    span, label = (node.span, "") if node is not None else (Span(), not_here)
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
