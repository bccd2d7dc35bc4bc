"""`plan_reload`: what differs between two tables, as values and as text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from abe_router.config.building.loader import Loader
from abe_router.operations.plan import RouteChange, plan_reload
from abe_router.routing.difference import OptionChange, difference
from abe_router.routing.handler import unimported_handler
from abe_router.routing.policies import Batch, Emit, RetryPolicy
from abe_router.routing.route import Route
from abe_router.routing.table import RouteTable
from abe_router.schema import SchemaFolder

ROUTE = Route("orders.created", "billing", unimported_handler("shop:charge", ()))


def test_plan_has_the_routes_to_start_stop_restart_and_keep() -> None:
    kept, gone = replace(ROUTE, group="kept"), replace(ROUTE, group="gone")
    added, changed = replace(ROUTE, group="added"), replace(ROUTE, concurrency=3)
    plan = plan_reload(RouteTable((ROUTE, kept, gone)), RouteTable((changed, kept, added)))
    assert (plan.start, plan.stop, plan.keep) == ((added.name,), (gone.name,), (kept.name,))
    assert plan.restart == (RouteChange(ROUTE.name, (OptionChange("concurrency", "10", "3"),)),)
    assert not any((plan.add_keys, plan.remove_keys, plan.keys, plan.file, plan.restart_process))


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"timeout": 90.5}, "timeout 30s -> 90.5s"),
        ({"retry": RetryPolicy(initial=1.0)}, "retry.initial 200ms -> 1s"),
        ({"retry": RetryPolicy(jitter=False)}, "retry.jitter true -> false"),
        ({"max_deliveries": 7}, "max_deliveries default -> 7"),
        ({"start": float("inf")}, "start earliest -> latest"),
        ({"batch": Batch(500, 1.0)}, "batch none -> up to 500 in 1s"),
        ({"rate": 1.5}, "rate none -> 90/m"),
        ({"emit": Emit("orders.charged")}, "emit none -> orders.charged"),
        ({"order_by": "/customer"}, "order_by none -> /customer"),
        ({"when": SchemaFolder(Path()).inline({"type": "object"}, "when")}, 'when none -> {"type":"object"}'),
    ],
)
def test_change_is_written_as_in_the_routes_file(changed: dict[str, object], text: str) -> None:
    changes = difference(RouteTable((ROUTE,)), RouteTable((replace(ROUTE, **changed),)))
    assert list(changes.lines()) == [f"changed orders.created/billing ({text})"]


def test_backend_and_prefix_need_a_restart_of_the_process() -> None:
    old = RouteTable(backend="redis://me:secret@localhost/0")
    new = RouteTable(backend="redis://me:other@elsewhere/0", prefix="shop:")
    assert [str(change) for change in plan_reload(old, new).restart_process] == [
        "backend redis://***@localhost/0 -> redis://***@elsewhere/0, needs a restart",
        "prefix '' -> 'shop:', needs a restart",
    ]


FILE = """\
unrouted: allow
trace: {ratio: 0.5}
routes:
  orders.created: {schema: order.json, id: /id, dedupe: 1h, consumers: {g: {handler: a:b, owner: shop}}}
  orders.paid: {retain: 1h}
  orders.old: {}
  orders.sent: {consumers: {g: a:b}}
"""
EDITED = """\
formats: false
routes:
  orders.created: {schema: other.json, id: Event-Id, dedupe: 2h, consumers: {g: {handler: a:b, owner: mail}}}
  orders.paid: {tags: [money], description: after the bank}
  orders.new: {}
  orders.sent: {}
http: {listen: 127.0.0.1:1, tokens: {ada: {sha256: HASH, roles: [viewer]}}}
""".replace("HASH", "a" * 64)


def test_changes_of_keys_and_of_the_file_are_described(tmp_path: Path) -> None:
    for name in ("order", "other"):
        (tmp_path / f"{name}.json").write_text(f'{{"title": "{name}"}}')
    old, new = (
        load(tmp_path / f"{name}.yaml", f"schemas: {tmp_path}\n{text}")
        for name, text in (("old", FILE), ("new", EDITED))
    )
    assert list(difference(old, new).lines()) == [
        "removed orders.sent/g",
        "changed orders.created/g (schema order.json -> other.json)",
        "added key orders.new",
        "removed key orders.old",
        "key orders.created: schema order.json -> other.json, id /id -> Event-Id, dedupe 1h -> 2h",
        "key orders.paid: retain 1h -> none, description none -> ..., tags none -> money",
        "key orders.sent: consumers some -> none, it is only published",
        "route orders.created/g: owner shop -> mail",
        "trace.ratio 0.5 -> 0.0",
        "formats true -> false",
        "unrouted allow -> error",
        "http.listen none -> 127.0.0.1:1",
        "http.tokens none -> ...",
    ]
    assert list(difference(new, new).lines()) == []


def test_lines_of_many_changes_have_their_number() -> None:
    keys = tuple(f"a{number}" for number in range(3000))
    routes = tuple(replace(ROUTE, key=key) for key in keys)
    slow = RouteTable(
        tuple(replace(route, timeout=1.0) for route in routes), keys, retain=dict.fromkeys(keys, 1)
    )
    assert list(difference(RouteTable(), RouteTable(routes, keys)).lines()) == [
        "added 3,000 routes",
        "added 3,000 keys",
    ]
    assert list(difference(RouteTable(routes, keys), slow).lines()) == [
        "changed 3,000 routes",
        "changed 3,000 keys",
    ]


def load(path: Path, text: str) -> RouteTable:
    path.write_text(text)
    return Loader(path, import_handlers=False, env={}).load()
