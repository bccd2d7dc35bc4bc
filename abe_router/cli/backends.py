"""`abe-router backends`: the providers, what each can do, and which one `load_backend()` selects."""

from __future__ import annotations

from dataclasses import asdict

from abe_router.backend import FEATURES
from abe_router.cli.errors import FINDINGS, OK
from abe_router.cli.examples import as_command
from abe_router.cli.options import json_option
from abe_router.cli.output import print_json, print_message, print_table
from abe_router.compat.load import choose
from abe_router.errors import BackendError
from abe_router.operations.providers import ProviderDescription, describe_providers
from abe_router.text import redact_url


@as_command(
    "backends",
    """
    abe-router backends
    QUEUE_BACKEND=redis abe-router backends
    abe-router backends --json | jq -r .selected.why
    """,
)
@json_option
def command(json: bool) -> int:
    """List the backend providers and their features, and the one `load_backend()` selects.

    A routes file names its own backend. The selected provider is the one that a program gets without naming
    one. The exit code is 1 when that provider is missing or broken.
    """
    described, choice = list(describe_providers()), choose()
    try:
        name = choice.find().name
        fault = next((provider.fault for provider in described if name in provider.names), "")
    except BackendError as error:
        name, fault = "", str(error)
    if json:
        selected = {**asdict(choice), "name_or_url": redact_url(choice.name_or_url), "fault": fault}
        print_json({"providers": described, "selected": selected})
    else:
        headings = ("provider", "from", *(feature.heading for feature in FEATURES), "selected")
        rows = [(*_cells(p), choice.why if name in p.names else "") for p in described]
        print_table(headings, rows)
    for provider in described:
        if provider.fault and name not in provider.names:
            print_message(f"warning: {provider.fault}")
    if fault:
        print_message(f"error: {choice.why}, but {fault}")
        return FINDINGS
    if choice.others:
        print_message(f"hint: {' or '.join(choice.others)} is possible too; set QUEUE_BACKEND to choose")
    return OK


def _cells(provider: ProviderDescription) -> tuple[str, ...]:
    origin = f"{provider.distribution} {provider.version}".strip()
    able = [getattr(provider.features, f.name) if provider.features else None for f in FEATURES]
    return (", ".join(provider.names), origin, *({True: "yes", False: "no", None: "?"}[can] for can in able))
