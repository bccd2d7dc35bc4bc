"""Texts that quote payloads, with sensitive values masked: each form of a value, whole or cut."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abe_router.backend import Dead, Delivery
from abe_router.consumer.disposition import Disposition, DispositionPolicy
from abe_router.consumer.filter import Filter
from abe_router.messages.message import Message
from abe_router.routing.contract import SchemaBinding
from abe_router.routing.handler import handler_from
from abe_router.routing.policies import RetryPolicy
from abe_router.routing.route import Route
from abe_router.schema import Schema, SchemaFolder, TextMask

KEY = "orders.created"


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    """Return a schema whose `secret` is sensitive."""
    folder = tmp_path_factory.mktemp("schemas")
    properties = {"secret": {"x-sensitive": True}, "id": {"type": "integer"}}
    (folder / "order.json").write_text(json.dumps({"type": "object", "properties": properties}))
    return SchemaFolder(folder).load("order.json")


def hidden(schema: Schema, secret: Any, text: str) -> str:
    return TextMask(lambda: [(schema, json.dumps({"secret": secret}).encode())]).hide(text)


@given(
    st.text("aZ09", min_size=8, max_size=8),
    st.text("'\"\\\n\x00 ab\u00e9\u2603\U0001f600", max_size=12),
    st.data(),
)
@settings(deadline=None)
def test_text_that_a_handler_quotes_in_any_form_is_masked(
    schema: Schema, head: str, tail: str, data: st.DataObject
) -> None:
    secret = head + tail
    quoted: str = secret
    for _ in range(data.draw(st.integers(0, 2))):
        quoted = data.draw(
            st.sampled_from([repr, json.dumps, lambda text: json.dumps(text, ensure_ascii=False)])
        )(quoted)
    shown = hidden(schema, secret, f"the order {quoted!s} is refused")
    assert re.sub(r"""[\\'"]""", "", shown) == "the order (masked) is refused"


@pytest.mark.parametrize(
    ("secret", "text", "shown"),
    [
        ("4111-4242-4343", "card 4111-4242… and …4242-4343", "card (masked)… and …(masked)"),
        ("ab", "ab abc cab 'ab'", "(masked) abc cab '(masked)'"),
        (42, "42 of 420, x42", "(masked) of 420, x42"),
        (-1234567.0, "-1234567.0 1,234,567 1234567", "(masked) (masked) (masked)"),
        (
            {"number": [4111, True, None], "secret": "s3cr3t"},
            "secret=s3cr3t number 4111",
            "secret=(masked) (masked) (masked)",
        ),
        (True, "True is true", "True is true"),
        ("", "no order", "no order"),
        ("...", "no order...", "no order..."),
    ],
)
def test_value_is_masked_and_the_rest_of_a_text_stays(
    schema: Schema, secret: Any, text: str, shown: str
) -> None:
    assert hidden(schema, secret, text) == shown


def test_text_is_masked_as_a_whole_if_its_values_are_not_known(schema: Schema) -> None:
    assert hidden(schema, [f"value {number}" for number in range(1_001)], "text") == "(masked)"
    assert hidden(schema, "secret", "text " * 1_000_000) == "(masked)"
    for body in (b"[1]", b"not JSON", b'"{\\"secret\\": 1}"'):
        assert TextMask(lambda: [(schema, body)]).hide("text") == "(masked)"  # noqa: B023
        assert TextMask(lambda: [(schema, body)]).hide("") == ""  # noqa: B023


def policy_of(function: Any, schema: Schema) -> tuple[Route, DispositionPolicy]:
    route = Route(
        KEY, "billing", handler_from(function), (SchemaBinding(KEY, schema),), retry=RetryPolicy(attempts=1)
    )
    return route, DispositionPolicy(route, revision="1", report_handled=False)


def delivery(payload: object) -> Delivery:
    return Delivery(Message("1", KEY, json.dumps(payload).encode(), attempt=1), 1, None)


def reason(disposition: Disposition) -> Any:
    assert isinstance(disposition.outcome, Dead)
    return disposition.outcome.dead_letter.reason


@pytest.mark.parametrize(
    "payload", [{"secret": ["File", "line", "raise", "charge", Path(__file__).name]}, ["File"]]
)
def test_frames_of_a_traceback_stay_whatever_is_masked(schema: Schema, payload: object) -> None:
    def charge(payload: object) -> None:
        raise ValueError(f"cannot charge {payload}")

    _, policy = policy_of(charge, schema)
    try:
        charge(payload)
    except ValueError as error:
        failed = reason(policy.failed(delivery(payload), error))
    shown = failed.traceback.splitlines()
    assert shown[1].strip().startswith(f'File "{__file__}", line ')
    assert 'raise ValueError(f"cannot charge {payload}")' in failed.traceback
    assert shown[-1] == f"ValueError: {failed.message}"
    assert "'File'" not in failed.message
    assert "(masked)" in failed.message
    assert failed.frame.endswith("charge")


def test_error_of_a_batch_has_no_value_of_any_of_its_messages(schema: Schema) -> None:
    _, policy = policy_of(print, schema)
    batch = [delivery({"secret": f"secret-{number}"}) for number in range(3)]
    error = ValueError("one of secret-0, secret-1, secret-2")
    failed = reason(policy.failed(batch[0], error, policy.mask_of(batch)))
    assert failed.message == "one of (masked), (masked), (masked)"


@dataclass
class Order:
    """A payload type with a check of its own, which quotes a value."""

    secret: str

    def __post_init__(self) -> None:
        raise ValueError(f"`{self.secret}` is no card")


def test_reason_of_a_payload_type_quotes_no_sensitive_value(schema: Schema) -> None:
    def charge(order: Order) -> None: ...

    route, policy = policy_of(charge, schema)
    checked = Filter(route, policy).check(delivery({"secret": "4111-4242"}))
    assert isinstance(checked, Disposition)
    assert "`(masked)` is no card" in reason(checked).message


def test_route_without_a_sensitive_schema_masks_nothing(tmp_path: Path) -> None:
    (tmp_path / "open.json").write_text('{"minimum": 0}')
    _, policy = policy_of(print, SchemaFolder(tmp_path).load("open.json"))
    assert policy.mask_of([delivery({})]) is None
