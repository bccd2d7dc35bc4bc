"""The installed backend providers and what each can do."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from abe_router.backend import Features
from abe_router.backends import providers
from abe_router.errors import BackendError


class ProviderDescription(msgspec.Struct, frozen=True):
    """A provider with all of its names.

    `features` is None when it cannot be loaded, and `fault` says why. `written_for` is `abe-router`, or
    `abstract-backend` when it needs the adapter.
    """

    names: tuple[str, ...]
    distribution: str
    version: str
    entry_point: str
    written_for: str
    features: Features | None
    fault: str


def describe_providers() -> Iterator[ProviderDescription]:
    """Yield each installed provider once, with every name it is registered under; each is imported."""
    found = providers()
    for value in dict.fromkeys(provider.point.value for provider in found.values()):
        names = tuple(name for name, provider in found.items() if provider.point.value == value)
        provider = found[names[0]]
        features: Features | None = None
        fault = ""
        try:
            features = provider.load().features
        except BackendError as error:
            fault = str(error)
        yield ProviderDescription(
            names=names,
            distribution=provider.distribution,
            version=provider.version,
            entry_point=provider.point.value,
            written_for="abstract-backend" if provider.is_abstract else "abe-router",
            features=features,
            fault=fault,
        )
