"""Tokens: no more a second than the rate, over all callers together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from unittest import SkipTest

from abe_router.backend.rate import BURST
from abe_router.conformance.clients import run_client, take_tokens_for
from abe_router.conformance.harness import KEY, Harness
from abe_router.conformance.suite import Suite, check

#: The rate of the tests, in tokens a second, and for how long tokens are taken, in seconds.
RATE, SECONDS = 200.0, 0.4


class RateTests(Suite):
    """A rate belongs to a name, over all callers of that name."""

    @check()
    async def test_token_is_granted_after_the_wait_that_was_returned(self, harness: Harness) -> None:
        """A bug blocks a route that waits too long, or asks again and again."""
        take_tokens = harness.backend.take_tokens
        assert (await take_tokens(KEY, 5.0, 100)).granted == 1
        refused = await take_tokens(KEY, 5.0, 100)
        assert refused.granted == 0
        assert 0 < refused.seconds <= 1 / 5
        await asyncio.sleep(refused.seconds + 0.001)
        assert (await take_tokens(KEY, 5.0, 100)).granted == 1

    @check()
    async def test_no_more_tokens_are_granted_than_wanted(self, harness: Harness) -> None:
        """A bug loses tokens that no handler uses, and with them the rate of the route."""
        assert (await harness.backend.take_tokens(KEY, RATE, 0)).granted == 0
        assert (await harness.backend.take_tokens(KEY, RATE, 1)).granted == 1
        most = RATE * BURST
        assert most - 1 <= (await harness.backend.take_tokens(KEY, RATE, 1_000)).granted <= most

    @check()
    async def test_slow_rate_grants_one_token_at_a_time(self, harness: Harness) -> None:
        """A bug blocks a route that may handle less than one message in each burst."""
        take_tokens = harness.backend.take_tokens
        assert (await take_tokens(KEY, 1 / 3600, 10)).granted == 1
        granted, seconds = await take_tokens(KEY, 1 / 3600, 10)
        assert granted == 0
        assert 3590 < seconds <= 3600

    @check()
    async def test_raised_rate_holds_at_once(self, harness: Harness) -> None:
        """A bug blocks a route whose rate was edited, until the tokens of the lower rate are used up."""
        take_tokens = harness.backend.take_tokens
        assert (await take_tokens(KEY, 1 / 3600, 1)).granted == 1
        refused = await take_tokens(KEY, 5.0, 1)
        assert refused.granted == 0
        assert 0 < refused.seconds <= 1 / 5 + 0.001
        await asyncio.sleep(refused.seconds + 0.001)
        assert (await take_tokens(KEY, 5.0, 1)).granted == 1

    @check()
    async def test_each_name_has_its_own_rate(self, harness: Harness) -> None:
        """A bug blocks every route behind the slowest."""
        assert (await harness.backend.take_tokens(KEY, RATE, 1_000)).granted == RATE * BURST
        assert (await harness.backend.take_tokens("orders.paid", RATE, 1_000)).granted == RATE * BURST

    @check(measures_time=True)
    async def test_backends_keep_one_rate_together(self, harness: Harness) -> None:
        """A bug exceeds the rate, by as many times as there are workers."""
        backends = [harness.backend, harness.another(), harness.another()]
        _assert_rate(
            await asyncio.gather(*(take_tokens_for(backend, KEY, RATE, SECONDS) for backend in backends))
        )

    @check("processes", measures_time=True)
    async def test_processes_keep_one_rate_together(self, harness: Harness) -> None:
        """A bug exceeds the rate, by as many times as there are processes."""
        if not self.url:
            raise SkipTest("other processes need a URL")
        arguments = (self.url, harness.prefix, KEY, str(RATE), str(SECONDS))
        printed = await asyncio.gather(*(run_client("tokens", *arguments) for _ in range(2)))
        _assert_rate([(float(began), float(ended), int(granted)) for began, ended, granted in printed])


def _assert_rate(asked: Sequence[tuple[float, float, int]]) -> None:
    """Fail unless all tokens together are what the rate allows, and no less than half of it."""
    seconds = max(ended for _, ended, _ in asked) - min(began for began, _, _ in asked)
    granted = sum(granted for _, _, granted in asked)
    most = RATE * BURST + RATE * seconds
    assert granted <= most + 1, f"{granted} tokens in {seconds:.2f} s, not {most:.0f}"
    longest = max(ended - began for began, ended, _ in asked)
    assert granted >= RATE * longest / 2, f"{granted} tokens in {longest:.2f} s, not {RATE * longest:.0f}"
