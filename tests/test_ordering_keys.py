"""Deliveries of one ordering key are handed out one at a time."""

from __future__ import annotations

import pytest

from abe_router.backend import Delivery
from abe_router.consumer.ordering_keys import OrderingKeys
from abe_router.messages.message import new_message


def delivery(body: bytes, key: str = "orders.created", *, wait: float = 0.0) -> Delivery:
    return Delivery(new_message(key, body), 1, None, None, wait)


def together(one: Delivery, other: Delivery) -> bool:
    """Say whether two deliveries have one ordering key."""
    keys = OrderingKeys("/customer/id")
    keys.add([one, other], 0.0)
    return len(keys.take(2, 0.0)) == 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"customer": {"id": "a"}}',
        b'{"customer": {"id": 123456789012345678901234567890}}',
        b'{"customer": {"id": false}}',
        b'{"customer": {"id": ""}}',
        b'{"customer": {"id": [1, {"b": 2, "a": 1}]}}',
    ],
)
def test_one_value_is_one_ordering_key_for_each_routing_key(body):
    assert together(delivery(body), delivery(body))
    assert not together(delivery(body), delivery(body, "orders.paid"))


def test_order_of_members_does_not_matter():
    one, other = b'{"customer": {"id": {"a": 1, "b": 2}}}', b'{"customer": {"id": {"b": 2, "a": 1}}}'
    assert together(delivery(one), delivery(other))


@pytest.mark.parametrize(
    "body", [b"{}", b"7", b'{"customer": null}', b'{"customer": {"id": null}}', b"no JSON", b""]
)
def test_message_without_a_value_waits_for_nothing(body):
    assert not together(delivery(body), delivery(body))


def test_retry_stays_first_until_it_is_due():
    keys = OrderingKeys("/id")
    first, second = delivery(b'{"id": 1}'), delivery(b'{"id": 1}')
    keys.add([first, second], 0.0)
    assert keys.take(5, 0.0) == [first]
    retry = delivery(b'{"id": 1}', wait=2.0)
    keys.replace(first, retry, 10.0)
    assert (keys.take(5, 11.9), keys.next_due) == ([], 12.0)
    assert keys.waiting() == [retry, second]
    assert keys.take(5, 12.0) == [retry]
    keys.end(retry)
    assert keys.take(5, 12.0) == [second]
    keys.end(second)
    assert len(keys) == 0


def test_early_delivery_waits_until_it_is_due():
    keys = OrderingKeys("/id")
    early, next_one = delivery(b'{"id": 1}', wait=3.0), delivery(b'{"id": 1}', wait=8.0)
    keys.add([early, next_one], 10.0)
    assert keys.take(5, 12.9) == []
    assert keys.take(5, 13.0) == [early]
    keys.end(early)
    assert (keys.take(5, 17.9), keys.take(5, 18.0)) == ([], [next_one])


def test_given_back_delivery_is_taken_next():
    keys = OrderingKeys("/id")
    deliveries = [delivery(b'{"id": %d}' % n) for n in range(3)]
    keys.add(deliveries, 0.0)
    (first,) = keys.take(1, 0.0)
    keys.give_back(first)
    assert (keys.active, len(keys), keys.taken) == (3, 3, set())
    assert keys.take(3, 0.0) == deliveries
