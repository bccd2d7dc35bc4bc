"""`abe-router test`: runs and reports the cases of the file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .conftest import ROUTES, Run

CASES = """\
tests:
  An order is charged:
    publish: {key: orders.created, payload: {id: 1, total: 250}}
    handled: orders.created/billing
  an empty order is charged:
    publish: {key: orders.created, payload: {id: 2, total: 0}}
    handled: orders.created/billing
"""


@pytest.fixture(autouse=True)
def _cases(shop: Path) -> None:
    (shop / "routes.yaml").write_text(ROUTES + CASES)


def test_failed_case_shows_its_position_and_what_happened(run: Run) -> None:
    done = run("test")
    assert done.code == 1
    lines = done.out.splitlines()
    assert lines[0].startswith("ok    An order is charged  (")
    assert lines[1:4] == [
        "FAIL  an empty order is charged  (routes.yaml:19:3)",
        "      routes.yaml:21:14: expected `orders.created/billing` to handle a message",
        '        dead: {"id":2,"total":0}: rejected Reject: nothing to charge',
    ]
    assert done.err.startswith("1 passed, 1 failed in ")


def test_handler_output_is_shown_for_a_failed_case(run: Run, shop: Path) -> None:
    (shop / "routes.yaml").write_text(
        ROUTES + CASES.replace("handled: orders.created/billing", "nothing: orders.created/billing")
    )
    done = run("test", "-k", "an order")
    assert done.code == 1
    _, _, printed = done.out.partition("      printed:\n")
    assert "charged" in printed


def test_cases_are_selected_by_part_of_their_name(run: Run) -> None:
    done = run("test", "-k", "AN ORDER")
    assert (done.code, len(done.out.splitlines())) == (0, 1)
    assert done.err.startswith("1 passed in ")
    done = run("test", "-k", "refund")
    assert (done.code, done.out) == (1, "")
    assert "no case has `refund` in its name" in done.err


def test_json_has_every_case_with_its_failures(run: Run) -> None:
    done = run("test", "--json")
    good, bad = done.json
    assert done.code == 1
    assert (good["passed"], good["failures"]) == (True, [])
    assert (bad["name"], bad["line"], bad["column"]) == ("an empty order is charged", 19, 3)
    assert bad["failures"][0]["line"] == 21


def test_file_without_tests_exits_1_and_faulty_file_78(run: Run, shop: Path) -> None:
    (shop / "routes.yaml").write_text(ROUTES)
    assert run("test").code == 1
    (shop / "routes.yaml").write_text(ROUTES + CASES.replace("handled", "handeld"))
    done = run("test")
    assert done.code == 78
    assert "did you mean `handled`?" in done.err


def test_json_of_no_cases_is_an_empty_list(run: Run, shop: Path) -> None:
    done = run("test", "--json", "-k", "refund")
    assert (done.code, done.json) == (1, [])
    (shop / "routes.yaml").write_text(ROUTES)
    done = run("test", "--json")
    assert (done.code, done.json) == (1, [])
    assert done.err.startswith("error: routes.yaml has no `tests`\n")


def test_unexpected_dead_letter_shows_the_traceback_of_the_handler(
    run: Run, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "shop_handlers", raising=False)  # of another test
    with (shop / "shop_handlers.py").open("a") as file:
        file.write("\n\ndef charge(order):\n    return order['totl']\n")
    lines = run("test").out.splitlines()
    at = next(n for n, line in enumerate(lines) if "failed KeyError: 'totl'" in line)
    assert lines[at + 1] == "        Traceback (most recent call last):"
    assert lines[at + 2].startswith(f'          File "{shop}/shop_handlers.py", line ')
    assert lines[at + 3] == "            return order['totl']"
