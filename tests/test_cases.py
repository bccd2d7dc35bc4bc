"""Cases of `tests` run in memory: those that pass, those that fail, and the reported differences."""

from __future__ import annotations

import sys

import pytest

from abe_router.config.building.loader import Loader
from abe_router.errors import ConfigError
from abe_router.routing.case import PayloadMatcher
from abe_router.testing.cases import run_case
from tests.limits import HANG

ROUTES = """\
backend: redis://nobody.invalid/0
schemas: .
routes:
  orders.created:
    schema: order.json
    consumers:
      billing:
        handler: case_handlers:charge
        emit: orders.paid
        retry: {attempts: 3, initial: 1h}
      audit: {handler: "case_handlers:record", when: {properties: {total: {minimum: 100}}}, rate: 1/h}
      quick: {handler: "case_handlers:record", on_invalid: drop}
  orders.paid:
tests:
"""
ORDER = '{"type": "object", "required": ["total"], "properties": {"total": {"type": "number", "minimum": 0}}}'
HANDLERS = """\
from abe_router import Reject

attempts = 0

def charge(order):
    global attempts
    if order["total"] == 0:
        raise Reject("nothing to charge")
    if order["total"] == 13:
        attempts += 1
        raise OSError("no luck")
    order["paid"] = True
    return {"paid": order["total"]}

def record(order):
    print("recorded", order)
"""
FAULTY = """\
routes: {orders.paid: {consumers: {mail: a:b}}}
tests:
  post: {publish: {key: orders.paid, payload: 1}, handled: orders.paid/post}
  mail: {publish: {key: orders.paid, payload: no}, handled: orders.paid/mail}
  push: {publsh: 1}
  plain: 5
backend: memory://
"""
LARGE = "publish: {key: orders.created, payload: {id: 1, total: 250}}"
SMALL = "publish: {key: orders.created, payload: {id: 2, total: 20}}"
EMPTY = "publish: {key: orders.created, payload: {total: 0}}"
BELOW = "publish: {key: orders.created, payload: {total: -1}}"
STRANGE = "publish: {key: orders.created, payload: {total: -1}, unchecked: true}"
BOTH = """publish:
      - {key: orders.created, payload: {id: 1, total: 250}}
      - {key: orders.created, payload: {id: 2, total: 20}}"""


def test_faults_in_tests_are_errors_warnings_or_not_read(tmp_path):
    path = tmp_path / "routes.yaml"
    path.write_text(FAULTY)
    with pytest.raises(ConfigError) as error:
        Loader(path, import_handlers=False).load()
    warned = Loader(path, import_handlers=False, tests="warn").load()
    lines = set(range(3, 7))
    assert {each.line for each in error.value.diagnostics} == {each.line for each in warned.warnings} == lines
    assert {name: found[0].line for name, found in warned.case_faults.items()} == {
        "post": 3,
        "mail": 4,
        "push": 5,
        "plain": 6,
    }
    assert {each.severity for each in warned.warnings} == {"warning"}
    ignored = Loader(path, import_handlers=False, tests="off").load()
    assert (ignored.warnings, ignored.cases, ignored.revision) == ((), (), warned.revision)
    path.write_text(FAULTY.replace("backend: memory", "backend: nowhere"))
    with pytest.raises(ConfigError, match="nowhere"):
        Loader(path, import_handlers=False, tests="off").load()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs one case, given by its publications and its expectations."""
    (tmp_path / "order.json").write_text(ORDER)
    (tmp_path / "case_handlers.py").write_text(HANDLERS)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "case_handlers", raising=False)

    async def run(publish, *expected):
        lines = "".join(f"    {line}\n" for line in (publish, *expected))
        (tmp_path / "routes.yaml").write_text(f"{ROUTES}  it works:\n{lines}")
        table = Loader(tmp_path / "routes.yaml", backend="memory://").load()
        (case,) = table.cases
        return await run_case(table, case, patience=5.0)

    return run


@pytest.mark.parametrize(
    ("publish", "expected"),
    [
        (LARGE, ()),
        (LARGE, ("handled: orders.created/billing",)),
        (LARGE, ("handled: [orders.created/billing, orders.created/audit, orders.created/quick]",)),
        (LARGE, ("handled: {route: orders.created/billing, payload: {total: 250, id: 1}}",)),
        (LARGE, ("handled: {route: orders.created/audit, containing: {total: 250}}",)),
        (LARGE, ("emitted: orders.paid",)),
        (LARGE, ("emitted: {key: orders.paid, payload: {paid: 250}}",)),
        (SMALL, ("skipped: {route: orders.created/audit, containing: {id: 2}}",)),
        (SMALL, ("nothing: orders.created/audit",)),
        (EMPTY, ("dead: orders.created/billing",)),
        (EMPTY, ("dead: {route: orders.created/billing, kind: rejected, error: to charge}",)),
        (EMPTY.replace("0", "13"), ("dead: {route: orders.created/billing, kind: failed, error: OSError}",)),
        (BELOW, ("rejected: /total", "nothing: orders.created/billing")),
        (BELOW, ("rejected: {key: orders.created, at: /total, keyword: minimum, error: at least 0}",)),
        (
            STRANGE,
            (
                "dead: [{route: orders.created/billing, at: /total, keyword: minimum}, orders.created/audit]",
                "skipped: orders.created/quick",
            ),
        ),
        # The first expectation is less specific, and leaves the second one its only match.
        (BOTH, ("handled: [orders.created/billing, {route: orders.created/billing, containing: {id: 1}}]",)),
        (BOTH, ("handled: [orders.created/audit]", "skipped: [orders.created/audit]")),
    ],
)
async def test_a_case_whose_expectations_are_met_passes(run, publish, expected):
    result = await run(publish, *expected)
    assert result.failures == ()
    assert result.passed


@pytest.mark.parametrize(
    ("publish", "expected", "message", "detail"),
    [
        (
            LARGE,
            "handled: {route: orders.created/billing, payload: {id: 1, total: 25, name: x}}",
            "expected `orders.created/billing` to handle a message",
            'at /total: expected 25, found 250; at /name: expected "x", found nothing',
        ),
        (
            LARGE,
            "handled: {route: orders.created/billing, payload: {total: 250}}",
            "expected `orders.created/billing` to handle a message",
            "at /id: expected nothing, found 1",
        ),
        (
            LARGE,
            "handled: [orders.created/billing, orders.created/billing]",
            "expected `orders.created/billing` to handle a message",
            "it did so for fewer messages than expected",
        ),
        (
            SMALL,
            "handled: orders.created/audit",
            "expected `orders.created/audit` to handle a message",
            'skipped: {"id":2,"total":20}',
        ),
        (
            LARGE,
            "skipped: orders.created/audit",
            "expected `orders.created/audit` to skip a message",
            'handled: {"id":1,"total":250}',
        ),
        (
            LARGE,
            "dead: orders.created/billing",
            "expected a dead letter of `orders.created/billing`",
            'handled: {"id":1,"total":250}',
        ),
        (
            EMPTY,
            "dead: {route: orders.created/billing, kind: failed}",
            "expected a dead letter of `orders.created/billing`",
            "expected kind failed, found rejected: Reject: nothing to charge",
        ),
        (
            EMPTY,
            "dead: {route: orders.created/billing, at: /total}",
            "expected a dead letter of `orders.created/billing`",
            "expected a violation at /total, found Reject: nothing to charge",
        ),
        (LARGE, "rejected: /total", "expected a message to be rejected", "no such event"),
        (
            BELOW,
            "rejected: {at: /totl, keyword: minimum}",
            "expected a message to be rejected",
            "expected minimum at /totl, found minimum at /total",
        ),
        (
            LARGE,
            "nothing: orders.created/billing",
            "expected `orders.created/billing` to get nothing",
            'got: {"id":1,"total":250}',
        ),
        (
            LARGE,
            "emitted: {key: orders.paid, payload: {paid: true}}",
            "expected a message to be emitted to `orders.paid`",
            "at /paid: expected true, found 250",
        ),
        (
            EMPTY,
            "handled: orders.created/quick",
            "unexpected dead letter of `orders.created/billing`",
            'dead: {"total":0}: rejected Reject: nothing to charge',
        ),
        (
            BELOW,
            "nothing: orders.created/billing",
            "unexpected rejection by `orders.created`",
            'rejected: {"total":-1}: at /total: minimum: expected at least 0, found -1',
        ),
    ],
)
async def test_a_failed_case_reports_the_difference(run, publish, expected, message, detail):
    result = await run(publish, expected)
    (failure,) = result.failures
    assert (failure.message, "; ".join(failure.details)) == (message, detail)
    assert failure.position.line in {len(ROUTES.splitlines()) + 1, len(ROUTES.splitlines()) + 3}


async def test_an_output_with_the_id_of_its_cause_is_a_message_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "same_id_handlers.py").write_text("def price(order):\n    return {**order, 'priced': True}\n")
    (tmp_path / "routes.yaml").write_text("""\
backend: memory://
routes:
  orders.created: {id: /id, consumers: {pricing: {handler: "same_id_handlers:price", emit: orders.priced}}}
  orders.priced: {id: /id}
tests:
  it works:
    publish: {key: orders.created, payload: {id: "7"}}
    handled: {route: orders.created/pricing, payload: {id: "7"}}
    emitted: {key: orders.priced, payload: {id: "7", priced: true}}
""")
    monkeypatch.setattr(sys, "path", [*sys.path])
    table = Loader(tmp_path / "routes.yaml").load()
    assert (await run_case(table, table.cases[0])).failures == ()


async def test_all_attempts_are_made_without_delays(run):
    result = await run(EMPTY.replace("0", "13"), "dead: orders.created/billing")
    assert result.passed
    assert result.seconds < 5
    assert sys.modules["case_handlers"].attempts == 3


async def test_a_case_that_does_not_become_quiet_fails(run, monkeypatch):
    result = await run(LARGE)
    assert result.passed
    import threading

    held = threading.Event()
    monkeypatch.setattr(sys.modules["case_handlers"], "record", lambda order: held.wait(HANG))
    table = Loader(sys.modules["case_handlers"].__file__.replace("case_handlers.py", "routes.yaml")).load()
    result = await run_case(table, table.cases[0], patience=0.2)
    held.set()
    assert "not quiet after 200ms: orders.created/audit, orders.created/quick" in result.failures[0].message


@pytest.mark.parametrize(
    "expected",
    [
        "handled:",
        "handled: []",
        "dead: {route: orders.created/billing, kind: }",
        "rejected: {at: }",
        "dead: 3",
    ],
)
async def test_an_empty_expectation_is_an_error(run, expected):
    with pytest.raises(ConfigError):
        await run(LARGE, expected)


@pytest.mark.parametrize("emit", ["[]", "{a: 1}", "true", "5"])
def test_cases_are_checked_beside_an_emit_of_another_type(emit, tmp_path):
    (tmp_path / "order.json").write_text(ORDER)
    text = ROUTES.replace("emit: orders.paid", f"emit: {emit}")
    (tmp_path / "routes.yaml").write_text(f"{text}  one: {{{LARGE}, emitted: orders.piad, handled: ''}}\n")
    with pytest.raises(ConfigError) as caught:
        Loader(tmp_path / "routes.yaml", import_handlers=False).load()
    said = [fault.message for fault in caught.value.diagnostics]
    assert any(message.startswith("`emit` expects text, found") for message in said)
    assert {"no route ``", "no route emits `orders.piad`"} <= set(said)


@pytest.mark.parametrize(("written", "id"), [("", None), (", id: ''", ""), (", id: a", "a")])
def test_a_case_publishes_with_the_id_that_it_gives(written, id, tmp_path):
    (tmp_path / "order.json").write_text(ORDER)
    given = LARGE.replace("}}", "}" + written + "}")
    (tmp_path / "routes.yaml").write_text(f"{ROUTES}  one: {{{given}}}\n")
    table = Loader(tmp_path / "routes.yaml", import_handlers=False).load()
    assert table.cases[0].publish[0].id == id


def test_true_and_1_are_different_values():
    assert PayloadMatcher({"a": 1}).differences({"a": True}) == ["at /a: expected 1, found true"]
    assert PayloadMatcher([1, 2.0]).differences([1.0, 2]) == []
    assert PayloadMatcher([{"a": 1}], exactly=False).differences([{"a": 1, "b/c": 2}]) == []
    found = PayloadMatcher([{"a": 1}]).differences([{"a": 1, "b/c": 2}])
    assert found == ["at /0/b~1c: expected nothing, found 2"]
