"""The health of all partitions together."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from abe_router.backend import (
    HealthCheck,
    HealthResult,
    SubscriptionName,
    orphaned_subscriptions,
)
from abe_router.backends.redis.entry import accepted_at
from abe_router.backends.redis.layout import Layout
from abe_router.backends.redis.names import OUTBOX
from abe_router.backends.redis.node import Node
from abe_router.backends.redis.partitioned.merging import sum_statuses
from abe_router.backends.redis.partitioned.partition import Partition, all_of
from abe_router.diagnostic import Severity
from abe_router.errors import BackendError, BackendUnavailable
from abe_router.text import counted, format_duration

#: From this age on, in seconds, an output in an outbox is worth a warning. A mover takes it at once, or after
#: five seconds if the mover before it has died.
_OLD = 15.0


async def check_partitions(
    partitions: Sequence[Partition], layout: Layout, served: Collection[SubscriptionName] | None
) -> list[HealthResult]:
    """Return the results of all partitions, those that are alike once."""
    found = await all_of([each.check_health(served) for each in partitions])
    results = list(_distinct(result for results in found for result in results))
    if any(result.code in (HealthCheck.REFUSED, HealthCheck.RIGHTS) and result.weakens for result in results):
        return results
    nodes = await all_of([each.opened() for each in partitions])
    try:
        await layout.check(nodes[0])
    except BackendUnavailable:
        raise
    except BackendError as error:
        return [*results, _refusal(error)]
    statuses = sum_statuses(await all_of([each.status() for each in partitions]))
    results += orphaned_subscriptions(statuses, served)
    for waiting in await all_of([check_outbox(each) for each in nodes]):
        results += waiting
    return results


def _refusal(error: BackendError) -> HealthResult:
    return HealthResult(
        HealthCheck.REFUSED,
        Severity.ERROR,
        str(error),
        "nothing can be published or handled until that is fixed",
    )


def _distinct(results: Iterator[HealthResult]) -> Iterator[HealthResult]:
    """Yield each result once; of what is well one for each code, and none of parts of a subscription."""
    seen: set[object] = set()
    for result in results:
        if result.code == HealthCheck.ORPHANED:
            continue
        what = (result.code, result.message) if result.weakens else result.code
        if what not in seen:
            seen.add(what)
            yield result


async def check_outbox(source: Node) -> list[HealthResult]:
    """Return a result if outputs wait in an outbox for longer than moving them takes."""
    stream = source.names.stream(OUTBOX)
    first = await source.connection.send("XREAD", "COUNT", 1, "STREAMS", stream, "0-0")
    if not first:
        return []
    seconds, _ = await source.connection.send("TIME")
    age = int(seconds) - accepted_at(first[0][1][0][0])
    if age < _OLD:
        return []
    count = await source.connection.send("XLEN", stream)
    return [
        HealthResult(
            HealthCheck.OUTBOX,
            Severity.WARNING,
            f"{counted(count, 'output')} in `{stream}` not moved yet, the oldest for {format_duration(age)}",
            "they are not lost, and reach their keys when a worker can move them",
            "run `abe-router serve`; the log of its workers says what holds them up",
        )
    ]
