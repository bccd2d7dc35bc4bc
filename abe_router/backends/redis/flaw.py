"""Flaws of Redis and Valkey that endanger what they keep, and the releases that have them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Branch = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Flaw:
    """A flaw: what it is called, what it lets happen, and where it is gone.

    `mended` is by branch the first release without it. Branches between those had no mending, and neither
    had those before; later ones were begun without it. `since` is the first branch that has it.
    """

    name: str
    effect: str
    mended: Mapping[Branch, int]
    since: Branch = (0, 0)

    def is_in(self, branch: Branch, patch: int) -> bool:
        """Say whether a release has it."""
        if branch < self.since:
            return False
        if branch in self.mended:
            return patch < self.mended[branch]
        return branch < max(self.mended)


_REDIS = (
    Flaw(
        "CVE-2025-49844",
        "whoever may run scripts can run code on the server",
        {(7, 2): 11, (7, 4): 6, (8, 0): 4, (8, 2): 2},
    ),
    Flaw("CVE-2025-62507", "whoever may use XACKDEL can run code on the server", {(8, 2): 3}, since=(8, 2)),
    Flaw(
        "CVE-2026-23479",
        "whoever is logged in may run code on the server by way of blocked clients",
        {(7, 2): 14, (7, 4): 9, (8, 2): 6, (8, 4): 3, (8, 6): 3},
        since=(7, 2),
    ),
    Flaw(
        "pull request 15478",
        "XREAD and XREADGROUP pass over the key patterns of an ACL",
        {(8, 2): 9, (8, 4): 6, (8, 6): 6, (8, 8): 2},
        since=(8, 2),
    ),
)
_WITH_TLS = (
    Flaw(
        "CVE-2026-81934",
        "whoever reaches the TLS port may run code on the server",
        {(7, 2): 16, (7, 4): 11, (8, 2): 9, (8, 4): 6, (8, 6): 6, (8, 8): 2, (8, 10): 1},
    ),
)
_WITHOUT_PREAMBLE = (
    Flaw("8.6.0", "what the append-only file holds may not be read back", {(8, 6): 1}, since=(8, 6)),
)
_VALKEY = (
    Flaw(
        "CVE-2025-49844",
        "whoever may run scripts can run code on the server",
        {(7, 2): 11, (8, 0): 6, (8, 1): 4},
    ),
)


def flaws(version: str, *, valkey: bool = False, tls: bool = False, preamble: bool = True) -> Iterator[Flaw]:
    """Yield the flaws of a release, `version` being three numbers with dots; none for what is not that.

    `tls` is whether it listens for TLS, `preamble` its setting `aof-use-rdb-preamble`.
    """
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if numbers is None:
        return
    branch, patch = (int(numbers[1]), int(numbers[2])), int(numbers[3])
    known = (
        _VALKEY
        if valkey
        else (*_REDIS, *(_WITH_TLS if tls else ()), *(() if preamble else _WITHOUT_PREAMBLE))
    )
    yield from (flaw for flaw in known if flaw.is_in(branch, patch))
