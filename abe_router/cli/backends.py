"""`abe-router backends`: the providers, what each can do, and which one `load_backend()` selects."""

from __future__ import annotations

from dataclasses import asdict

from abe_router.cli.errors import FINDINGS, OK
from abe_router.cli.examples import as_command
from abe_router.cli.options import json_option
from abe_router.cli.output import print_json, print_message, print_table
from abe_router.compat.load import choose
from abe_router.errors import BackendError
from abe_router.operations.providers import ProviderDescription, describe_providers
from abe_router.text import redact_url

#: The heading of each feature, in the order of the columns.
COLUMNS = {
    "durable": "durable",
    "processes": "several processes",
    "groups": "groups",
    "leases": "leases",
    "delays": "delay",
    "dead_letters": "dead letters",
    "dedupe": "dedupe",
    "order": "order",
}


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
        headings = ("provider", "from", *COLUMNS.values(), "selected")
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
    able = [getattr(provider.features, name) if provider.features else None for name in COLUMNS]
    return (", ".join(provider.names), origin, *({True: "yes", False: "no", None: "?"}[can] for can in able))
