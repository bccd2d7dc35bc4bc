"""`check_health`: the order of results, and what counts as served."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from abe_router.backend import HealthResult, SubscriptionName
from abe_router.backends.memory import MemoryBackend
from abe_router.backends.sqlite import SQLiteBackend
from abe_router.diagnostic import Severity
from abe_router.operations.health import check_health
from abe_router.routing.handler import unimported_handler
from abe_router.routing.route import Route
from abe_router.routing.table import RouteTable

TABLE = RouteTable((Route("a", "first", unimported_handler("shop:charge", ())),))


class Checked(MemoryBackend):
    """Returns results in no order, and keeps what it is asked."""

    served: Collection[SubscriptionName] | None = None

    async def check_health(
        self, served: Collection[SubscriptionName] | None = None
    ) -> Sequence[HealthResult]:
        self.served = served
        results = [("D3", Severity.OK), ("D2", Severity.WARNING), ("D1", Severity.WARNING)]
        return [HealthResult(code, severity, "text") for code, severity in results]


async def test_worst_results_come_first() -> None:
    report = await check_health(TABLE, Checked())
    assert [result.code for result in report.results] == ["D1", "D2", "D3"]
    assert not report.healthy


async def test_routes_of_the_table_are_served_and_no_routes_say_nothing() -> None:
    backend = Checked()
    await check_health(TABLE, backend)
    assert backend.served == {("a", "first")}
    await check_health(RouteTable(), backend)
    assert backend.served is None


async def test_ignored_results_do_not_count() -> None:
    report = await check_health(TABLE, Checked(), ignore=["D1", "D2", "D9"])
    assert [result.code for result in report.results] == ["D3"]
    assert report.healthy
    assert report.ignored == ("D1", "D2")


async def test_missing_sqlite_file_is_healthy_and_not_created(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    backend = SQLiteBackend.from_url(f"sqlite:///{path}")
    report = await check_health(TABLE, backend)
    await backend.close()
    assert report.healthy
    assert not path.exists()
