"""Providers: entry points that make backends, found by name or by the scheme of a URL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import TypeVar

from abe_router.backend import Backend
from abe_router.backend.substitute import substitute
from abe_router.errors import BackendError, UnknownProvider
from abe_router.text import did_you_mean, redact_url

#: The entry-point group of providers; the name of an entry is its URL scheme.
GROUP = "abe_router.backends"
#: The groups of Abstract Backend: the one that it reads, and the one that it and `abe-redis` register in.
ABSTRACT_GROUPS = ("abe.backends.message_queue", "abe.backends.message_queue.service")
#: The prefix in the name of a provider that was written for Abstract Backend.
ABSTRACT = "abstract+"

B = TypeVar("B", bound=Backend)

_OURS = "abe-router"
#: Ours, which are found without the metadata of the package too, as in a plain source tree.
_POINTS = (
    EntryPoint("memory", "abe_router.backends.memory:MemoryBackend", GROUP),
    EntryPoint("sqlite", "abe_router.backends.sqlite:SQLiteBackend", GROUP),
    EntryPoint("redis", "abe_router.backends.redis:RedisBackend", GROUP),
    EntryPoint("rediss", "abe_router.backends.redis:RedisBackend", GROUP),
    EntryPoint("redis+cluster", "abe_router.backends.redis:RedisBackend", GROUP),
    EntryPoint("rediss+cluster", "abe_router.backends.redis:RedisBackend", GROUP),
    EntryPoint("redis+sentinel", "abe_router.backends.redis:RedisBackend", GROUP),
    EntryPoint("rediss+sentinel", "abe_router.backends.redis:RedisBackend", GROUP),
    EntryPoint("unix", "abe_router.backends.redis:RedisBackend", GROUP),
)


@dataclass(frozen=True, slots=True)
class Provider:
    """An installed provider that is not loaded yet; `distribution` is its package."""

    name: str
    point: EntryPoint
    distribution: str = _OURS

    @property
    def ours(self) -> bool:
        """Whether it belongs to this package."""
        return self.distribution == _OURS

    @property
    def is_abstract(self) -> bool:
        """Whether it was written for Abstract Backend and needs the adapter."""
        return self.name.startswith(ABSTRACT)

    @property
    def version(self) -> str:
        """The version of its distribution, empty when there is none."""
        try:
            return version(self.distribution)
        except (PackageNotFoundError, ValueError):
            return ""

    def load(self) -> type[Backend]:
        """Import the provider; raise BackendError when it fails or is no provider."""
        try:
            loaded = self.point.load()
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise BackendError(
                f"provider `{self.name}` ({self.point.value}) cannot be loaded: {why}"
            ) from error
        if isinstance(loaded, type) and issubclass(loaded, Backend):
            return loaded
        if self.is_abstract:
            from abe_router.backends.abstract import AbstractBackend, is_abstract

            if is_abstract(loaded):
                return AbstractBackend.adapt(self.name, loaded)
        raise BackendError(f"provider `{self.name}` ({self.point.value}) is not a Backend class")

    def from_env(self, env: Mapping[str, str], wrap: Callable[[type[Backend]], type[B]]) -> B:
        """Make the backend from environment variables; raise BackendError when that is impossible.

        `wrap` is applied to the provider's class first. A provider need not have `from_env`.
        """
        provider = wrap(self.load())
        from_env = getattr(provider, "from_env", None)
        if from_env is None:
            raise BackendError(f"provider `{self.name}` has no `from_env`: give the backend as a URL")
        try:
            backend: B = from_env(env)
            return backend
        except BackendError:
            raise
        except Exception as error:
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            raise BackendError(
                f"provider `{self.name}` cannot be made from the environment: {kind}{redact_url(str(error))}"
            ) from error


#: Ours by name. They are found without a search through all installed packages, which takes long.
BUILT_IN = {point.name: Provider(point.name, point) for point in _POINTS}


def providers() -> dict[str, Provider]:
    """Return the installed providers by name, which is their URL scheme, ours first.

    No other provider can take the name of one of ours.
    """
    found = dict(BUILT_IN)
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        found.setdefault(point.name, Provider(point.name, point, _distribution(point)))
    for group in ABSTRACT_GROUPS:
        for point in sorted(entry_points(group=group), key=lambda point: point.name):
            name = f"{ABSTRACT}{point.name}"
            if name not in found and not point.value.startswith("abe_router."):
                found[name] = Provider(name, point, _distribution(point))
    return found


def find_by_name(name: str) -> Provider:
    """Return the provider called `name`, or else the one called `abstract+name`; raise UnknownProvider."""
    found = providers()
    provider = found.get(name) or found.get(f"{ABSTRACT}{name}")
    if provider is None:
        raise _unknown(f"no backend provider is called `{name}`", name, found)
    return provider


def named_url(name_or_url: str, env: Mapping[str, str]) -> str:
    """Return the URL that the name of a provider stands for; return what is no such name as it is.

    A provider may have a class method `url_from_env`, which reads the variables that `from_env` reads.
    """
    if "://" in name_or_url:
        return name_or_url
    try:
        provider = find_by_name(name_or_url)
        from_env = getattr(provider.load(), "url_from_env", None)
    except BackendError:  # the URL is reported with its place in the file
        return name_or_url
    return f"{provider.name}://" if from_env is None else str(from_env(env))


def find_by_url(url: str) -> Provider:
    """Return the provider whose whole name is the scheme of a URL; raise UnknownProvider."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise UnknownProvider(
            f"`{redact_url(url)}` is not a backend URL: it begins with a scheme, as `memory://`"
        )
    if scheme in BUILT_IN:
        return BUILT_IN[scheme]
    found = providers()
    if scheme not in found:
        raise _unknown(f"no backend provider takes `{redact_url(url)}`", scheme, found)
    return found[scheme]


def find_provider(url: str) -> type[Backend]:
    """Return the provider class for a URL; raise UnknownProvider or BackendError."""
    return find_by_url(url).load().for_url(url)


def _unknown(what: str, name: str, found: Mapping[str, Provider]) -> UnknownProvider:
    abstract = f"{ABSTRACT}{name}"
    hint = f"did you mean `{abstract}`?" if abstract in found else did_you_mean(name, found)
    hint = hint or "install the package that provides it"
    return UnknownProvider(f"{what}; {hint} (installed: {', '.join(found)})")


def make_backend(url: str, *, prefix: str = "") -> Backend:
    """Make the backend of a URL, without connecting; raise BackendError when that is impossible.

    Inside a test in memory, it is the test's own.
    """
    if (own := substitute()) is not None:
        return own
    return make_from(find_provider(url), url, prefix=prefix)


def make_from(provider: type[B], url: str, *, prefix: str = "") -> B:
    """Make a backend of this class from its URL, without connecting; raise BackendError if it cannot be."""
    try:
        return provider.from_url(url, prefix=prefix)
    except ValueError as error:
        raise BackendError(f"backend URL `{redact_url(url)}` is malformed: {error}") from error


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "unknown"
