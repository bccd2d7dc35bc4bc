"""Bodies, headers, keys and ids arrive unchanged, whatever they are."""

from __future__ import annotations

import json
from math import inf

from abe_router.backend import RELEASED, Dead, Delayed, Outcome
from abe_router.conformance.harness import GROUP, KEY, Harness, ack, assert_exactly_once, dead_letter, take
from abe_router.conformance.suite import Suite, check
from abe_router.messages.message import MAX_BYTES, Message, decode, new_message

#: Bodies that providers have lost, cut or changed: empty, binary, not UTF-8, with line ends, large.
BODIES = (
    b"",
    b"\x00",
    bytes(range(256)),
    b"\xff\xfe\x80not utf-8\xc3\x28",
    b"\r\n*3\r\n$3\r\n",
    b"null",
    b'{"n":' + b"9" * 400 + b"}",
    "\u00e9\u0000\u2028\U0001f4e6".encode(),
    json.dumps({"deep": [[[[]]]], "float": 1e308, "text": "\ud83d\ude00"}).encode(),
)

#: Headers of the same kinds.
HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"": ""},
    {"trace-parent": "00-4bf92f-00f067-01", "Trace-Parent": "another case"},
    {"\u00fcn\u00efc\u00f6de \U0001f4e6": "\u65e5\u672c\u8a9e \U0001f680", "nul": "\x00", "lines": "a\r\nb"},
    {"json": '{"a": [1, "\\u0000"]}', "long": "x" * 65_536},
    {f"h-{n}": f"{n}" * 10 for n in range(1_000)},
)


class PayloadTests(Suite):
    """The backend carries messages; it never reads them."""

    async def _unchanged(self, harness: Harness, sent: list[Message]) -> None:
        """Fail unless the messages come unchanged: new, then released, retried and replayed."""
        handle = await harness.subscribe("#")
        await harness.backend.append(sent)
        came = await take(handle, len(sent))
        first = [delivery.message for delivery in came]
        assert_exactly_once(sent, came)
        _same(sent, first)
        again: list[Outcome] = [RELEASED] if harness.features.leases else []
        again += [Delayed(0.0)] if harness.features.delays else []
        for outcome in again:
            assert not await handle.settle([(delivery, outcome) for delivery in came])
            came = await take(handle, len(sent))
            _same(first, [delivery.message for delivery in came], clock=0.002)
        if harness.features.dead_letters:
            assert not await handle.settle([(delivery, Dead(dead_letter(delivery))) for delivery in came])
            dead_letters = await harness.backend.dead_letters("#", GROUP, limit=len(sent))
            _same(first, [each.message for each in dead_letters], clock=0.002)
            assert await harness.backend.replay("#", GROUP, [each.id for each in dead_letters]) == len(sent)
            came = await take(handle, len(sent))
            _same(first, [delivery.message for delivery in came], clock=0.002)
        await ack(handle, came)

    @check()
    async def test_every_body_arrives_unchanged(self, harness: Harness) -> None:
        """A bug changes what is not UTF-8, not JSON, empty, or looks like the protocol itself."""
        await self._unchanged(harness, [new_message(KEY, body) for body in BODIES])

    @check()
    async def test_largest_body_arrives(self, harness: Harness) -> None:
        """A bug loses what exceeds a limit of the provider that is lower than ours."""
        await self._unchanged(harness, [new_message(KEY, b'"' + b"x" * (MAX_BYTES - 2) + b'"')])

    @check()
    async def test_every_header_arrives_unchanged(self, harness: Harness) -> None:
        """A bug changes headers that are not ASCII, empty, large or many."""
        await self._unchanged(harness, [new_message(KEY, b"1", headers=headers) for headers in HEADERS])

    @check()
    async def test_every_key_and_id_arrives_unchanged(self, harness: Harness) -> None:
        """A bug changes names that a pattern language or a separator of the provider takes apart."""
        keys = ["a", "A", "a.b.c", "x" * 255, "a_b.c:d@e=f+g~h-i", "0.1", "data", "__proto__"]
        ids = ["1", "a b", "'; DROP TABLE m; --", "\u00e9\U0001f4e6", "a:b|c,d/e", "i" * 1_000, "None", "0-0"]
        sent = [
            Message(id, key, b"1", {}, 1.5e9 + n / 7)
            for n, (key, id) in enumerate(zip(keys, ids, strict=True))
        ]
        await self._unchanged(harness, sent)

    @check()
    async def test_large_integers_stay_exact(self, harness: Harness) -> None:
        """A bug changes numbers beyond 64 bits, which many JSON readers round."""
        value = {"id": 10**25 + 1, "minus": -(2**70) - 1}
        await harness.backend.publish(KEY, value)
        (delivery,) = await take(await harness.subscribe(), 1)
        assert decode(delivery.message.body) == value


def _same(sent: list[Message], came: list[Message], *, clock: float = inf) -> None:
    """Compare all but the attempt; times may differ by `clock` seconds, for the backend may set them."""
    by_id = {message.id: message for message in came}
    for message in sent:
        got = by_id[message.id]
        assert got.body == message.body, f"{got.body[:50]!r} came for {message.body[:50]!r}"
        assert (got.key, dict(got.headers)) == (message.key, dict(message.headers))
        assert abs(got.published_at - message.published_at) < clock
