"""Finds, makes and loads backends by the name or the URL of their provider.

A provider registers its Backend class under its URL scheme in the entry-point group `abe_router.backends`.
What is registered for Abstract Backend instead is found too, as `abstract+NAME`; see
`abe_router.backends.abstract` for what it cannot promise.
"""

from abe_router.backends.provider import BUILT_IN, Provider, find_provider, make_backend, named_url, providers

__all__ = [
    "BUILT_IN",
    "Provider",
    "find_provider",
    "make_backend",
    "named_url",
    "providers",
]
