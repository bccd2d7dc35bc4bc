"""The attempt that follows a failed one."""

from __future__ import annotations

import pytest

from abe_router.backend import Delivery
from abe_router.messages.message import new_message


@pytest.mark.parametrize(("noted", "first"), [(None, 8.0), (0.0, 0.0), (5.0, 5.0)])
def test_next_attempt_counts_up_and_keeps_the_first_failure(noted, first):
    delivery = Delivery(new_message("a", b"1"), 3, "old", noted)
    following = delivery.next_attempt(receipt="new", failed_at=8.0, wait=2.5)
    assert following.message.id == delivery.message.id
    assert following.message.attempt == delivery.message.attempt + 1
    assert (following.deliveries, following.receipt) == (4, "new")
    assert (following.failed_at, following.wait) == (first, 2.5)
