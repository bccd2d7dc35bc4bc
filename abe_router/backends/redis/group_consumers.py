"""The consumers of a group by which one handle reads one stream, and what each of them holds.

One of them claims, and reads small batches. Large batches have consumers of their own, so that the handle
can know all that each of them holds. Then the number of its pending entries proves that it holds each of
them, and the server need not list them for that. The proof needs three things:

- nothing comes to such a consumer but by the reads it is made for: no claim, no read on another connection;
- nothing else of it is under way, neither a read nor a settlement. Then `unsettled` has all that the server
  has given to it and that was not settled, whatever is sent again in another order;
- no answer to a read or to a settlement is lost, or is an error. Otherwise it is exact no more, for good. A
  proof that is sent again says nothing to a server that took over, and may have lost what was settled.

What others take away lowers the number. Nothing comes back to the consumer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from itertools import repeat
from typing import Any

from abe_router.backend import Delivery, Outcome

#: Least number of entries of a large batch. To list fewer costs less than to count, if many consumers of the
#: group hold something.
LARGE = 16
#: Most consumers for large batches: of one a batch is read, of others batches are handled and settled.
_MOST = 4

Part = Sequence[tuple[Delivery, Outcome]]


class GroupConsumer:
    """One consumer. While it `is_exact` and nothing is `under_way`, it holds nothing but `unsettled`."""

    __slots__ = ("is_exact", "name", "under_way", "unsettled")

    def __init__(self, name: str, *, is_exact: bool) -> None:
        self.name, self.is_exact = name, is_exact
        #: How many reads and settlements are under way.
        self.under_way = 0
        self.unsettled: set[bytes] = set()

    @property
    def is_free(self) -> bool:
        """Whether it holds nothing and reads nothing."""
        return not self.under_way and not self.unsettled

    def proof(self, ids: Collection[bytes]) -> int:
        """Return how many pending entries prove that it holds all of these now; 0 if no number does."""
        if not self.is_exact or self.under_way or not self.unsettled.issuperset(ids):
            return 0
        return len(self.unsettled) if len(set(ids)) == len(ids) else 0

    def acked(self, ids: Iterable[bytes], reply: asyncio.Future[Any]) -> None:
        """Record that entries were acked which `unsettled` has, unless the reply is an error."""
        if not reply.cancelled() and not reply.exception():
            self.unsettled.difference_update(ids)


class GroupConsumers:
    """The consumers of one handle in one group of a stream; `name` is that of the first.

    `held` are the entries that were delivered to us and that we do not know to be settled, each with the
    consumer that holds it.
    """

    __slots__ = ("_former", "_large", "_named", "_suspended", "first", "held")

    def __init__(self, name: str) -> None:
        #: The consumer that claims, and reads small batches.
        self.first = GroupConsumer(name, is_exact=False)
        self.held: dict[bytes, GroupConsumer] = {}
        #: The same of what was held when the group was lost. Another process may have created it anew before,
        #: and it may have given us entries.
        self._former: dict[bytes, GroupConsumer] = {}
        self._large: list[GroupConsumer] = []
        #: Those that may hold what was in a lost reply.
        self._suspended: list[GroupConsumer] = []
        self._named = 0

    @property
    def names(self) -> list[str]:
        """The names of all consumers that there were."""
        return [self.first.name, *(self._name(number + 1) for number in range(self._named))]

    @property
    def uncertain(self) -> list[GroupConsumer]:
        """Those that the server may have given something of which we do not know yet."""
        return [self.first, *self._suspended, *(each for each in self._large if each.under_way)]

    def for_read(self, count: int) -> GroupConsumer:
        """Return the consumer that reads so many entries."""
        if count < LARGE:
            return self.first
        for consumer in self._large:
            if consumer.is_free:
                return consumer
        if len(self._large) == _MOST:
            return self.first
        self._named += 1
        consumer = GroupConsumer(self._name(self._named), is_exact=True)
        self._large.append(consumer)
        return consumer

    def suspend(self, consumer: GroupConsumer) -> None:
        """Record that an answer to a read was lost or was an error, until `recovered`."""
        if consumer.is_exact:
            self._suspended.append(consumer)
        self.distrust(consumer)

    def recovered(self) -> None:
        """Record that nothing is unknown any more of what was in lost answers."""
        self._suspended.clear()

    def distrust(self, consumer: GroupConsumer) -> None:
        """Record that numbers of a consumer prove nothing any more."""
        if consumer.is_exact:
            consumer.is_exact = False
            self._large.remove(consumer)

    def distrust_all(self) -> None:
        """Record that no numbers prove anything any more: the server may have lost what it did last."""
        for each in tuple(self._large):
            if each.under_way:
                self.suspend(each)
            self.distrust(each)

    def received(self, ids: Sequence[bytes], consumer: GroupConsumer) -> None:
        """Record entries as held."""
        count = len(self.held)
        self.held.update(dict.fromkeys(ids, consumer))
        if len(self.held) != count + len(ids):  # some were held, and came once more
            for each in self._large:
                each.unsettled.difference_update(ids)
        if consumer.is_exact:
            consumer.unsettled.update(ids)

    def forget(self, ids: Collection[bytes], consumer: GroupConsumer | None = None) -> None:
        """Record that entries of a consumer, by default of any, are settled or taken from it."""
        deque(map(self.held.pop, ids, repeat(None)), maxlen=0)
        if self._former:
            deque(map(self._former.pop, ids, repeat(None)), maxlen=0)
        for each in (consumer,) if consumer else self._large:
            each.unsettled.difference_update(ids)

    def forget_all(self) -> None:
        """Record that we hold nothing any more: the group or the ownership is gone."""
        self._former.update(self.held)
        self.held.clear()
        self.distrust_all()

    def by_consumer(self, part: Part) -> Iterable[tuple[GroupConsumer, Part]]:
        """Split settlements by the consumer that holds the entries.

        What we do not hold is refused, whichever consumer asks.
        """
        found, former = self.held.get, self._former.get
        owners = [found(each.receipt) or former(each.receipt, self.first) for each, _ in part]
        if owners.count(owners[0]) == len(owners):
            return [(owners[0], part)]
        parts: dict[GroupConsumer, list[tuple[Delivery, Outcome]]] = {}
        for owner, settlement in zip(owners, part, strict=True):
            parts.setdefault(owner, []).append(settlement)
        return parts.items()

    def _name(self, number: int) -> str:
        name, slash, lease = self.first.name.rpartition("/")
        return f"{name}.{number}{slash}{lease}"
