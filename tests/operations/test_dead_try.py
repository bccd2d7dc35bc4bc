"""What would become of dead letters: decided by the checks of a consumer, without any handler."""

from __future__ import annotations

from pathlib import Path

import pytest

from abe_router.backend import Backend, Reason
from abe_router.backends.memory import MemoryBackend
from abe_router.messages.message import Message, encode, new_message
from abe_router.operations.access import load_table
from abe_router.operations.dead_letters import DeadLetterFilter
from abe_router.operations.dead_try import TryResult, try_dead_letters
from abe_router.operations.fingerprint import fingerprint
from abe_router.operations.masked import masked_payload
from abe_router.routing.table import RouteTable

from .conftest import NAME, ROUTE, died

SCHEMA = {"type": "object", "required": ["total"]}
FILE = """\
backend: memory://
schemas: .
routes:
  orders.created:
    schema: order.json
    consumers:
      billing: {{handler: "nowhere:charge", when: {{properties: {{total: {{maximum: 100}}}}}}{more}}}
"""


def table(folder: Path, minimum: int = 0, more: str = "") -> RouteTable:
    """Return the table of a file whose handler does not exist, so that it cannot be called."""
    properties = {"total": {"type": "number", "minimum": minimum}, "card": {"x-sensitive": True}}
    (folder / "order.json").write_bytes(encode({**SCHEMA, "properties": properties}))
    path = folder / "routes.yaml"
    path.write_text(FILE.format(more=more))
    return load_table(path)


async def failed(backend: Backend, *payloads: bytes) -> None:
    await backend.append([new_message(ROUTE[0], payload) for payload in payloads])
    subscription = await backend.subscribe(*ROUTE)
    kinds = {b"{": "malformed"}
    found = await subscription.fetch(len(payloads), 5)
    reasons = [Reason(kinds.get(each.message.body, "invalid"), "E", "no") for each in found]
    await subscription.settle([died(each, reason) for each, reason in zip(found, reasons, strict=True)])


async def test_try_counts_what_a_consumer_would_do(tmp_path: Path) -> None:
    async with MemoryBackend() as backend:
        await failed(
            backend, b'{"total": 5}', b'{"total": 7}', b"{}", b'{"total": -1}', b'{"total": 500}', b"{"
        )
        (result,) = await try_dead_letters(backend, table(tmp_path))
        assert str(result) == "3: still invalid; 2: reach the handler; 1: skipped"
        (malformed,) = (
            reason for reason in result.reasons if reason.startswith("payload is not JSON: it is faulty")
        )
        assert result.reasons == {
            "required `total` at (root)": 1,
            "minimum at /total": 1,
            "`when` does not match": 1,
            malformed: 1,
        }
        (stricter,) = await try_dead_letters(backend, table(tmp_path, minimum=6), ROUTE)
        assert str(stricter) == "4: still invalid; 1: reaches the handler; 1: skipped"
        group = fingerprint(Reason("malformed", "E", "no"))
        (some,) = await try_dead_letters(backend, table(tmp_path), where=DeadLetterFilter(group=group))
        assert str(some) == "1: still invalid"
        (dropped,) = await try_dead_letters(backend, table(tmp_path, more=", on_invalid: drop"))
        assert (dropped.dropped, dropped.delivered, dropped.skipped) == (3, 2, 1)
        assert len(await backend.dead_letters(*ROUTE)) == 6


async def test_route_that_is_not_in_the_file_is_unknown(tmp_path: Path) -> None:
    async with MemoryBackend() as backend:
        await failed(backend, b"{}")
        assert await try_dead_letters(backend, RouteTable()) == (TryResult(NAME, in_file=False, unknown=1),)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"total": 1, "card": "4111"}', b'{"total":1,"card":"(masked)"}'),
        (b'{"card": "4111"', b'"(masked)"'),
    ],
)
def test_payload_is_shown_with_sensitive_values_masked(tmp_path: Path, body: bytes, shown: bytes) -> None:
    message = Message("1", "orders.created", body)
    assert encode(masked_payload(table(tmp_path), message)) == shown
    # Without a file the schemas are not known.
    assert masked_payload(RouteTable(), message) == "(masked)"
    exact = masked_payload(table(tmp_path), Message("1", "other", b'{"n": 1.10}'), exact=True)
    assert bytes(exact) == b'{"n": 1.10}'
