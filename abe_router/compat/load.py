"""Chooses a backend as the guide has it: by name, by the environment, or by what is installed."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from abe_router.backend import Backend
from abe_router.backends.provider import Provider, find_by_name, find_by_url, make_backend, providers
from abe_router.text import redact_url

_log = logging.getLogger(__name__)

#: The variable that names the provider, or holds the URL of the backend.
VARIABLE = "QUEUE_BACKEND"
#: The variable by which one of our own is meant: being installed says nothing of those, for all of them are.
MEANT_BY = {"redis": "REDIS_URL", "sqlite": "SQLITE_PATH"}


@dataclass(frozen=True, slots=True)
class Choice:
    """Which backend `load_backend` takes: a provider's name or a URL, and why.

    `others` are the providers that could have been meant as well. `is_fallback` says that nothing was.
    """

    name_or_url: str
    why: str
    others: tuple[str, ...] = ()
    is_fallback: bool = False

    def find(self) -> Provider:
        """Return the provider; raise UnknownProvider when it is not installed."""
        return (find_by_url if "://" in self.name_or_url else find_by_name)(self.name_or_url)


def choose(name_or_url: str | None = None, *, env: Mapping[str, str] = os.environ) -> Choice:
    """Return which backend `load_backend` takes; nothing is imported, and no name is looked up.

    In this order: `name_or_url`; what `QUEUE_BACKEND` says; a provider that someone installed beside
    ours, first those written for this package, then those for Abstract Backend, by name; `redis` when
    `REDIS_URL` is set; `sqlite` when `SQLITE_PATH` is; memory.
    """
    if name_or_url:
        return Choice(name_or_url, "it was asked for")
    if named := env.get(VARIABLE, "").strip():
        return Choice(named, f"{VARIABLE} is set")
    found = providers()
    candidates = [
        (name, f"{provider.distribution} is installed")
        for name, provider in sorted(found.items(), key=lambda item: (item[1].is_abstract, item[0]))
        if not provider.ours and not (provider.is_abstract and name.partition("+")[2] in found)
    ]
    candidates += [(name, f"{variable} is set") for name, variable in MEANT_BY.items() if env.get(variable)]
    if not candidates:
        return Choice("memory", "nothing else is installed or configured", is_fallback=True)
    (first, why), *others = candidates
    return Choice(first, why, tuple(name for name, _ in others))


def load_backend(name_or_url: str | None = None, *, env: Mapping[str, str] = os.environ) -> Backend:
    """Make the backend that is asked for, without connecting; see `choose` for the order.

    `name_or_url` is a provider's name, such as `redis`, which is then configured by its own environment
    variables, or a URL, such as `redis://localhost/0`; of a URL that is only a scheme, such as `memory://`,
    the same is true as of the name. Warn when nothing was asked for and memory is
    taken, or when more than one provider could be meant. Raise UnknownProvider when the one named is not
    installed, and BackendError when it cannot be imported or made.
    """
    choice = choose(name_or_url, env=env)
    if choice.is_fallback:
        _warn(
            f"no backend is configured: messages stay in the memory of this process and are lost with it; "
            f"set {VARIABLE} to a name or URL (installed: {', '.join(providers())})"
        )
    elif choice.others:
        _warn(
            f"backend `{choice.name_or_url}` is taken, for {choice.why}; it might be "
            f"{' or '.join(f'`{name}`' for name in choice.others)} as well: set {VARIABLE} to choose"
        )
    address = choice.name_or_url.partition("://")[2]
    backend = make_backend(choice.name_or_url) if address else choice.find().from_env(env)
    _log.info("backend %s, for %s", redact_url(backend.url), choice.why)
    return backend


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=3)
    _log_once(text)


@cache
def _log_once(text: str) -> None:
    if _log.hasHandlers():  # without any, Python prints it to stderr, where the warning is already
        _log.warning("%s", text)
