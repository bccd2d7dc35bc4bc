"""`abe-router backends`: the providers, what each can do, and which one a program would get."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from abe_router.backend import FEATURES, Features
from abe_router.backends import Provider, providers
from abe_router.cli.examples import as_command
from abe_router.cli.failure import FINDINGS, OK
from abe_router.cli.options import json_option
from abe_router.cli.screen import say, show_json, show_table
from abe_router.compat.load import choose
from abe_router.errors import BackendError
from abe_router.text import redact_url


@dataclass(frozen=True, slots=True)
class _Row:
    """A provider with all of its names, and what it can do or why it cannot be loaded."""

    names: tuple[str, ...]
    provider: Provider
    features: Features | None
    fault: str

    def cells(self) -> tuple[str, ...]:
        origin = f"{self.provider.distribution} {self.provider.version}".strip()
        able = [getattr(self.features, feature.name) if self.features else None for feature in FEATURES]
        return (", ".join(self.names), origin, *({True: "yes", False: "no", None: "?"}[can] for can in able))

    def to_json(self) -> dict[str, Any]:
        return {
            "names": self.names,
            "distribution": self.provider.distribution,
            "version": self.provider.version,
            "entry_point": self.provider.point.value,
            "written_for": "abstract-backend" if self.provider.is_abstract else "abe-router",
            "features": msgspec.to_builtins(self.features),
            "fault": self.fault,
        }


@as_command(
    "backends",
    """
    abe-router backends
    QUEUE_BACKEND=redis abe-router backends
    abe-router backends --json | jq -r .taken.why
    """,
)
@json_option
def command(json: bool) -> int:
    """List the backend providers, what each can do, and which one `load_backend()` takes.

    A routes file names its own backend; what is taken here is what a program gets that names none. The
    exit code is 1 when that one is missing or broken.
    """
    rows, choice = list(_rows()), choose()
    try:
        name = choice.find().name
        fault = next((row.fault for row in rows if name in row.names), "")
    except BackendError as error:
        name, fault = "", str(error)
    if json:
        taken = {**asdict(choice), "name_or_url": redact_url(choice.name_or_url), "fault": fault}
        show_json({"providers": [row.to_json() for row in rows], "taken": taken})
    else:
        headings = ("provider", "from", *(feature.heading for feature in FEATURES), "taken")
        show_table(headings, [(*row.cells(), choice.why if name in row.names else "") for row in rows])
    for row in rows:
        if row.fault and name not in row.names:
            say(f"warning: {row.fault}")
    if fault:
        say(f"error: {choice.why}, but {fault}")
        return FINDINGS
    if choice.others:
        say(f"hint: {' or '.join(choice.others)} could be meant as well; set QUEUE_BACKEND to choose")
    return OK


def _rows() -> Iterable[_Row]:
    """Yield each provider once, under all the names it is registered by."""
    found = providers()
    for value in dict.fromkeys(provider.point.value for provider in found.values()):
        names = tuple(name for name, provider in found.items() if provider.point.value == value)
        provider = found[names[0]]
        try:
            yield _Row(names, provider, provider.load().features, "")
        except BackendError as error:
            yield _Row(names, provider, None, str(error))
