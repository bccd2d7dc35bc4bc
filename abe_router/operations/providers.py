"""The installed backend providers and their features."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from abe_router.backend import Features
from abe_router.backends import providers
from abe_router.errors import BackendError


class ProviderDescription(msgspec.Struct, frozen=True):
    """A provider with all of its names.

    `features` is None if the provider cannot be loaded, and `fault` is the reason. `written_for` is
    `abe-router`, or `abstract-backend` if the provider needs the adapter.
    """

    names: tuple[str, ...]
    distribution: str
    version: str
    entry_point: str
    written_for: str
    features: Features | None
    fault: str


def describe_providers() -> Iterator[ProviderDescription]:
    """Import each installed provider and yield it once, with all names under which it is registered."""
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
