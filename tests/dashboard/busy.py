"""A shop at work, without running it: reports of workers, backlogs, overrides and an hour of rates.

Pages that show figures need something to show. The reports are those that workers write.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping

import msgspec

from abe_router.backend import Dead, DeadLetter, Reason
from abe_router.operations.rate_history import INTERVAL, KEPT, RateHistory
from abe_router.operations.subscriptions import SubscriptionState
from abe_router.runtime.activity import RouteActivity
from abe_router.runtime.heartbeat import WORKERS, RouteState, WorkerReport
from abe_router.runtime.override import OVERRIDES, Override
from abe_router.runtime.publish import publish
from tests.http_server.serving import Serving, all_tokens
from tests.limits import HANG

#: Messages a second, the time of the handler by bucket, the share of attempts that fails, and the owner.
SHOP: Mapping[str, tuple[float, int, float, str]] = {
    "orders.cancelled/refunds": (6.2, 11, 0.61, "payments"),
    "inventory.adjusted/search-index": (96, 5, 0, "catalogue"),
    "invoices.requested/render-pdf": (18.5, 9, 0.01, "billing"),
    "shipments.dispatched/notify-email": (50, 7, 0, "logistics"),
    "orders.paid/ledger": (0, 3, 0, "billing"),
    "inventory.low/purchasing": (0.4, 8, 0, "catalogue"),
    "orders.created/audit": (398, 2, 0, ""),
    "orders.created/billing": (412, 4, 0.001, "billing"),
    "orders.created/warehouse": (406, 5, 0, "logistics"),
    "payments.*/fraud-score": (388, 6, 0.002, "payments"),
    "payments.settled/ledger": (201, 3, 0, "billing"),
    "shipments.delivered/survey": (3.8, 5, 0, "growth"),
    "users.deleted/erase": (0.1, 9, 0, "identity"),
    "users.registered/welcome": (7.1, 6, 0, "growth"),
}
BACKLOGS = {"orders.paid/ledger": 182, "invoices.requested/render-pdf": 34, "orders.created/billing": 3}


def shop_file(routes: Mapping[str, tuple[float, int, float, str]] = SHOP) -> str:
    """Return the routes file of the shop, with a token for each role."""
    tokens = "\n".join(f"    {name}: {options}" for name, options in all_tokens().items())
    keys: dict[str, list[str]] = {}
    for name, (*_, owner) in routes.items():
        key, group = name.split("/")
        metadata = f", owner: {owner}" if owner else ""
        keys.setdefault(key, []).append(f"      {group}: {{handler: 'os:getcwd'{metadata}}}")
    lines = "\n".join(f"  {key}:\n    consumers:\n" + "\n".join(groups) for key, groups in keys.items())
    head = "backend: memory://\nhttp:\n  listen: 127.0.0.1:0\n  tokens:\n"
    return f"{head}{tokens}\nroutes:\n{lines}\n"


def activity(routes: Mapping[str, tuple[float, int, float, str]], seconds: float) -> dict[str, RouteActivity]:
    """Return what the routes do in some seconds."""
    found = {}
    for name, (rate, bucket, failing, _) in routes.items():
        attempts = round(rate * seconds * random.uniform(0.85, 1.1))
        failed = round(attempts * failing)
        handled = attempts - failed
        if attempts:
            calls = {bucket - 1: attempts // 3, bucket: attempts // 2, bucket + 1: attempts // 6}
            slow = {bucket + 2: max(1, attempts // 80)} if attempts > 20 else {}
            found[name] = RouteActivity(
                handled=handled, retried=failed - failed // 5, dead=failed // 5, handling=calls | slow
            )
    return found


class Clock:
    """A clock that a test moves, and lets go."""

    at: float | None = None

    def __call__(self) -> float:
        return time.time() if self.at is None else self.at


def filled_history(
    routes: Mapping[str, tuple[float, int, float, str]] = SHOP, intervals: int = KEPT
) -> RateHistory:
    """Return a history of the last hour of the routes, or of fewer intervals.

    Those that fail do so for the last twelve minutes.
    """
    clock, now = Clock(), time.time()
    clock.at = now - intervals * INTERVAL
    history = RateHistory(clock)
    while clock.at < now:
        history.tick()
        wave, is_late = 1 + 0.2 * math.sin(clock.at / 300), clock.at > now - 720
        mixed = {
            name: (rate * wave, bucket, failing if is_late or failing < 0.1 else 0.0, owner)
            for name, (rate, bucket, failing, owner) in routes.items()
        }
        history.record(activity(mixed, INTERVAL), INTERVAL)
        history.record_backlogs(
            SubscriptionState(name, True, ready=round(waiting * wave if is_late else waiting / 9))
            for name, waiting in BACKLOGS.items()
        )
        clock.at += INTERVAL
    clock.at = None
    history.tick()
    return history


async def put_workers(served: Serving, count: int = 4, *, silent: int = 0) -> None:
    """Store the reports of workers; all routes run in each, and `silent` of them will miss their next one."""
    now = time.time()
    for number in range(1, count + 1):
        report = WorkerReport(
            host="host-a" if number < 3 else "host-b",
            pid=4_000 + number,
            started_at=now - 3_600,
            revision=served.table.revision,
            number=number,
            path=str(served.table.path),
            routes={name: RouteState(in_flight=number) for name in served.table.by_name},
            interval=3.0,
            activity=activity({name: (rate / count, *more) for name, (rate, *more) in SHOP.items()}, 3.0),
        )
        await served.backend.put(WORKERS, f"worker-{number}", msgspec.json.encode(report), ttl=600)
    await served.server._site.sampler.sample()
    for known in list(served.server._site.sampler.watch._known.values())[:silent]:
        known.seen_at -= 12


async def put_override(served: Serving, action: str, route: str, why: str, rate: float | None = None) -> None:
    """Store an override that holds for forty minutes."""
    override = Override(action, route, time.time(), 2_400, "ops", why, rate)
    await served.backend.put(OVERRIDES, override.name, msgspec.json.encode(override), ttl=2_400)


async def fill(served: Serving, intervals: int = KEPT) -> None:
    """Make a server show the shop, with a history of so many intervals."""
    for name, waiting in BACKLOGS.items():
        key, group = name.split("/")
        await (await served.backend.subscribe(key, group)).close()
        for number in range(waiting):
            await publish(served.table, served.backend, key, {"number": number})
    await add_failures(served, "orders.cancelled", "refunds")
    await put_override(served, "pause", "orders.paid/ledger", "gateway down")
    await put_override(served, "limit", "shipments.dispatched/notify-email", "mail provider quota", 50)
    served.server._site.sampler.history = filled_history(intervals=intervals)
    await put_workers(served)


TRACEBACK = """Traceback (most recent call last):
  File "/app/shop.py", line 41, in refund
    answer = gateway.refund(order)
TimeoutError: the gateway did not answer
"""


async def add_failures(served: Serving, key: str, group: str, count: int = 3) -> None:
    """Make messages of a route dead letters."""
    subscription = await served.backend.subscribe(key, group)
    for number in range(count):
        await publish(served.table, served.backend, key, {"number": number})
        (delivery,) = await subscription.fetch(1, HANG)
        reason = Reason("failed", "TimeoutError", f"order {number} failed", traceback=TRACEBACK)
        at = time.time() - 600 + number
        letter = DeadLetter(f"{key}/{group}", delivery.message, reason, 5, 5, at, at)
        await subscription.settle([(delivery, Dead(letter))])
    await subscription.close()
