"""The features of a backend, and one table of what a missing feature means."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from abe_router.backend.health import HealthCheck, HealthResult
from abe_router.diagnostic import Severity


class Feature(msgspec.Struct, frozen=True):
    """One row of the table: a feature, and what it means if a backend lacks it.

    `name` is the field of `Features`, and `heading` its column in `abe-router backends`. `doctor` reports
    `lacking` and `consequence` under the code `check`, with the `severity`. `options` are the options of a
    routes file that have no effect without the feature, each with what the backend does instead, as in
    "the backend keeps no order".
    """

    name: str
    heading: str
    check: HealthCheck
    lacking: str
    consequence: str
    options: Mapping[str, str] = {}
    severity: Severity = Severity.ERROR

    def result(self) -> HealthResult:
        """Return the result that `doctor` reports for a backend without the feature."""
        return HealthResult(self.check, self.severity, self.lacking, self.consequence, _HINT)


_HINT = "use another backend: `backend: sqlite:///queue.db` or `redis://HOST/0`"

#: The features, in the order of the columns of `abe-router backends`.
FEATURES = (
    Feature(
        "durable",
        "durable",
        HealthCheck.NOT_DURABLE,
        "the backend is not durable",
        "messages are lost with the process that holds them",
        {"start": "has no messages from before this process"},
    ),
    Feature(
        "processes",
        "several processes",
        HealthCheck.ONE_PROCESS,
        "the backend lives in one process",
        "no other process can publish to it, share its work or take over from it",
    ),
    Feature(
        "groups",
        "groups",
        HealthCheck.NO_GROUPS,
        "the backend has no groups",
        "subscriptions compete for messages and do not get a copy each",
    ),
    Feature(
        "leases",
        "leases",
        HealthCheck.NO_LEASES,
        "the backend has no leases",
        "a message is delivered at most once; messages in flight at a worker that dies are lost",
        {"lease": "delivers a message at most once", "max_deliveries": "does not count deliveries"},
    ),
    Feature(
        "delays",
        "delay",
        HealthCheck.NO_DELAYS,
        "the backend has no delays",
        "a retry cannot wait; a message is lost when its first attempt fails",
        {"retry": "cannot delay a retry"},
    ),
    Feature(
        "dead_letters",
        "dead letters",
        HealthCheck.NO_DEAD_LETTERS,
        "the backend has no dead letters",
        "a message that cannot be handled is logged and lost",
        {"dead_letter": "keeps no dead letters"},
    ),
    Feature(
        "dedupe",
        "dedupe",
        HealthCheck.NO_DEDUPE,
        "the backend remembers no ids",
        "`dedupe` has no effect; a message that is published again after an error is duplicated",
        {"dedupe": "remembers no ids"},
    ),
    Feature(
        "order",
        "order",
        HealthCheck.NO_ORDER,
        "the backend keeps no order",
        "`order_by` has no effect; messages with the same value are handled concurrently",
        {"order_by": "keeps no order"},
    ),
    Feature(
        "atomic_outputs",
        "atomic outputs",
        HealthCheck.NO_ATOMIC_OUTPUTS,
        "the backend cannot append an output and settle its cause in one step",
        "a crash between the two steps loses the output of a handler, or appends it twice",
    ),
    Feature(
        "key_value",
        "key-value",
        HealthCheck.NO_KEY_VALUE,
        "the backend has no key-value store",
        "workers cannot report to it, so `status` shows no workers",
        severity=Severity.INFO,
    ),
    Feature(
        "peek",
        "peek",
        HealthCheck.NO_PEEK,
        "the backend cannot peek",
        "waiting messages cannot be shown",
        severity=Severity.INFO,
    ),
)


class Features(msgspec.Struct, frozen=True):
    """The features of a backend. `FEATURES` says what each missing one means.

    `durable`: messages survive a crash of this process. `processes`: several processes share the backend.
    `groups`: each subscription gets its own copy. `leases`: a delivery that is not settled comes back.
    `delays`: a retry waits for its time. `dead_letters`: failed messages are kept. `dedupe`: `append_once`
    remembers ids. `order`: `subscribe_exclusive` is supported. `atomic_outputs`: the outputs of an `Acked`
    are appended in the step that settles it. `key_value`: `put`, `get`, `entries` and `delete` are
    supported. `peek`: `peek` is supported.
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

    def lacking(self) -> list[Feature]:
        """Return the features that the backend does not have."""
        return [feature for feature in FEATURES if not getattr(self, feature.name)]

    def without_effect(self) -> dict[str, str]:
        """Return the options of a routes file that have no effect, with what the backend does instead."""
        return {option: why for feature in self.lacking() for option, why in feature.options.items()}
