"""`load_backend`: chooses a backend by name, by the environment, or by what is installed."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from abe_router.backend.substitute import substitute
from abe_router.backends.provider import Provider, find_by_name, find_by_url, make_from, providers
from abe_router.compat.consume import QueueBackend, queue_class
from abe_router.text import redact_url

_log = logging.getLogger(__name__)

#: The variable that contains the name of the provider, or the URL of the backend.
VARIABLE = "QUEUE_BACKEND"
#: The variables that select one of our own providers. These are always installed, so that being installed
#: cannot select them.
SELECTED_BY = {"redis": "REDIS_URL", "sqlite": "SQLITE_PATH"}


@dataclass(frozen=True, slots=True)
class Choice:
    """The backend that `load_backend` takes, as a provider's name or a URL, and the reason.

    `others` are providers that the environment selects as well. `is_fallback` is True if nothing selects one.
    """

    name_or_url: str
    why: str
    others: tuple[str, ...] = ()
    is_fallback: bool = False

    def find(self) -> Provider:
        """Return the provider; raise UnknownProvider if it is not installed."""
        return (find_by_url if "://" in self.name_or_url else find_by_name)(self.name_or_url)


def choose(name_or_url: str | None = None, *, env: Mapping[str, str] = os.environ) -> Choice:
    """Return the backend that `load_backend` takes; imports nothing and looks up no name.

    In this order: `name_or_url`; the value of `QUEUE_BACKEND`; a provider that was installed in addition to
    ours, those written for this package before those for Abstract Backend, by name; `redis` if `REDIS_URL` is
    set; `sqlite` if `SQLITE_PATH` is set; memory.
    """
    if name_or_url:
        return Choice(name_or_url, "it is the argument")
    if named := env.get(VARIABLE, "").strip():
        return Choice(named, f"{VARIABLE} is set")
    found = providers()
    candidates = [
        (name, f"{provider.distribution} is installed")
        for name, provider in sorted(found.items(), key=lambda item: (item[1].is_abstract, item[0]))
        if not provider.ours and not (provider.is_abstract and name.partition("+")[2] in found)
    ]
    candidates += [
        (name, f"{variable} is set") for name, variable in SELECTED_BY.items() if env.get(variable)
    ]
    if not candidates:
        return Choice("memory", "nothing else is installed or configured", is_fallback=True)
    (first, why), *others = candidates
    return Choice(first, why, tuple(name for name, _ in others))


def load_backend(name_or_url: str | None = None, *, env: Mapping[str, str] = os.environ) -> QueueBackend:
    """Make a backend, without connecting; `choose` describes which one.

    `name_or_url` is a provider's name, such as `redis`, which is configured by its own environment variables,
    or a URL, such as `redis://localhost/0`. A URL that consists of a scheme, such as `memory://`, is the same
    as the name. Inside a test in memory, it is the test's own. Warn if memory is the fallback, or if several
    providers are selected. Raise UnknownProvider if the provider is not installed, BackendError if it cannot
    be imported or made.
    """
    if isinstance(own := substitute(), QueueBackend):
        return own
    choice = choose(name_or_url, env=env)
    if choice.is_fallback:
        _warn(
            f"no backend is configured: messages stay in the memory of this process and are lost with it; "
            f"set {VARIABLE} to a name or URL (installed: {', '.join(providers())})"
        )
    elif choice.others:
        _warn(
            f"backend `{choice.name_or_url}` is used because {choice.why}; "
            f"{' and '.join(f'`{name}`' for name in choice.others)} could be used too: "
            f"set {VARIABLE} to choose"
        )
    provider = choice.find()
    if choice.name_or_url.partition("://")[2]:
        kind = queue_class(provider.load().for_url(choice.name_or_url))
        backend = make_from(kind, choice.name_or_url)
    else:
        backend = provider.from_env(env, queue_class)
    _log.info("backend %s, because %s", redact_url(backend.url), choice.why)
    return backend


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=3)
    _log_once(text)


@cache
def _log_once(text: str) -> None:
    if _log.hasHandlers():  # without a handler, Python prints the record to stderr, beside the warning
        _log.warning("%s", text)
