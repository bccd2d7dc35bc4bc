"""What a backend can do, and what the promise lacks where it cannot."""

from __future__ import annotations

import msgspec

from abe_router.backend.health import HealthCheck, HealthResult
from abe_router.diagnostic import Severity

_ANOTHER = "take a backend that can: `backend: sqlite:///queue.db` or `redis://HOST/0`"
_LACKS = {
    "durable": (
        HealthCheck.NOT_DURABLE,
        "the backend is not durable",
        "messages are lost with the process that holds them",
    ),
    "processes": (
        HealthCheck.ONE_PROCESS,
        "the backend lives in one process",
        "no other process can publish to it, share its work or take over from it",
    ),
    "groups": (
        HealthCheck.NO_GROUPS,
        "the backend has no groups",
        "subscriptions compete for messages instead of getting a copy each",
    ),
    "leases": (
        HealthCheck.NO_LEASES,
        "the backend has no leases",
        "a message is handed out at most once: what a worker held when it died is lost",
    ),
    "delays": (
        HealthCheck.NO_DELAYS,
        "the backend has no delays",
        "a retry cannot wait: what fails is lost at its first attempt",
    ),
    "dead_letters": (
        HealthCheck.NO_DEAD_LETTERS,
        "the backend has no dead letters",
        "what cannot be handled is logged and gone",
    ),
    "dedupe": (
        HealthCheck.NO_DEDUPE,
        "the backend remembers no ids",
        "what is published again after an error is doubled, whatever its `dedupe`",
    ),
    "order": (
        HealthCheck.NO_ORDER,
        "the backend keeps no order",
        "messages of one value are handled beside and after each other, whatever `order_by` says",
    ),
    "atomic_outputs": (
        HealthCheck.NO_ATOMIC_OUTPUTS,
        "the backend cannot append an output and settle its cause in one step",
        "a crash between the two loses what a handler emits, or appends it twice",
    ),
    "key_value": (
        HealthCheck.NO_KEY_VALUE,
        "the backend has no key-value store",
        "workers cannot report to it, so `status` shows none",
    ),
    "peek": (
        HealthCheck.NO_PEEK,
        "the backend cannot be looked into",
        "messages that wait cannot be shown",
    ),
}


class Features(msgspec.Struct, frozen=True):
    """What a backend can do; `check` warns about options that ask for more.

    `durable` messages survive a crash of this process; `processes` may share the backend; `leases` and
    `delays` and `dead_letters` and `groups` are what a plain publish/consume provider lacks. With `dedupe`
    it remembers ids, for `append_once`; with `order` it has `subscribe_exclusive`. With `atomic_outputs` the
    outputs of an `Acked` are appended in the step that settles it, with `key_value` it has `put`, `get`,
    `entries` and `delete`, with `peek` it has `peek`.
    """

    durable: bool = True
    processes: bool = True
    groups: bool = True
    leases: bool = True
    delays: bool = True
    dead_letters: bool = True
    dedupe: bool = True
    order: bool = True
    atomic_outputs: bool = True
    key_value: bool = True
    peek: bool = True

    def lacks(self) -> list[HealthResult]:
        """Return a finding for each thing the promise needs and the backend cannot do."""
        fields = msgspec.structs.fields(self)
        return [
            HealthResult(_LACKS[field.name][0], Severity.ERROR, *_LACKS[field.name][1:], _ANOTHER)
            for field in fields
            if not getattr(self, field.name)
        ]
