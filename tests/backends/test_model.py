"""The memory backend against a model of the contract: any sequence of calls, by a clock that we move.

The model knows of each message, in each subscription, the one place where it is and what it has been
through. Every step is done to both, and both must agree on what came, what was refused, and all counts.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from abe_router.backend import ACKED, RELEASED, DeadLetter, Delayed, Died, Reason, SubscriptionStatus
from abe_router.backends.memory import MemoryBackend
from abe_router.message import new_message
from abe_router.pattern import matches

SUBSCRIPTIONS = (("a.b", "billing"), ("a.*", "audit"))
KEYS = ("a.b", "a.c")
INDEX = st.integers(0, 10_000)


@dataclass
class Known:
    """What the model knows of a message in one subscription."""

    number: int
    place: str = "ready"  # ready, leased, delayed, dead, done
    replayed: bool = False
    deliveries: int = 0
    attempt: int = 1
    failed: bool = False
    until: float = 0.0  # when the lease runs out or the retry falls due
    delivery: object = None  # the hand-out that may settle it

    @property
    def is_fresh(self):
        """Whether it comes in the order of the log."""
        return not (self.deliveries or self.replayed)

    def available(self, now):
        return self.place == "ready" or (self.place in ("leased", "delayed") and self.until <= now)

    def finish(self, place, until=0.0):
        self.place, self.until, self.delivery = place, until, None


class Contract(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        self.now = 1_000.0
        self.loop = asyncio.new_event_loop()
        self.backend = MemoryBackend(clock=lambda: self.now)
        self.model = {name: {} for name in SUBSCRIPTIONS}
        self.handles = {name: [] for name in SUBSCRIPTIONS}
        self.held = []  # (subscription, handle, delivery), those that went stale too
        self.appended = 0
        for name in SUBSCRIPTIONS:
            self.open(name, 10.0)

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    @rule(key=st.sampled_from(KEYS), count=st.integers(1, 5))
    def append(self, key, count):
        messages = []
        for _ in range(count):
            self.appended += 1
            message = new_message(key, b"%d" % self.appended)
            messages.append(message)
            for name, known in self.model.items():
                if matches(name[0], key):
                    known[message.id] = Known(self.appended)
        self.run(self.backend.append(messages))

    @rule(name=st.sampled_from(SUBSCRIPTIONS), lease=st.sampled_from((1.0, 10.0, 30.0)))
    def open(self, name, lease):
        if len(self.handles[name]) < 4:
            self.handles[name].append((self.run(self.backend.subscribe(*name, lease=lease)), lease))

    @rule(name=st.sampled_from(SUBSCRIPTIONS), index=INDEX, limit=st.integers(1, 6))
    def fetch(self, name, index, limit):
        handle, lease = self.handles[name][index % len(self.handles[name])]
        known = self.model[name]
        available = [id for id, each in known.items() if each.available(self.now)]
        fresh = sorted(known[id].number for id in available if known[id].is_fresh)
        came = self.run(handle.fetch(limit, 0.0))
        assert len(came) == min(limit, len(available))
        assert len({delivery.message.id for delivery in came}) == len(came)
        taken = []
        for delivery in came:
            assert delivery.message.id in available
            each = known[delivery.message.id]
            if each.is_fresh:
                taken.append(each.number)
            each.deliveries += 1
            assert (delivery.deliveries, delivery.message.attempt) == (each.deliveries, each.attempt)
            assert (delivery.failed_at is not None) == each.failed
            each.place, each.until, each.delivery = "leased", self.now + lease, delivery
            self.held.append((name, handle, delivery))
        assert taken == fresh[: len(taken)]

    def choose(self, indexes):
        """Return the name, the handle and some of the deliveries, current or stale, of one handle."""
        name, handle, _ = self.held[indexes[0] % len(self.held)]
        mine = [delivery for _, other, delivery in self.held if other is handle]
        return name, handle, list({mine[index % len(mine)]: None for index in indexes})

    @precondition(lambda self: self.held)
    @rule(
        indexes=st.lists(INDEX, min_size=1, max_size=6),
        outcome=st.sampled_from(("ack", "delay", "die", "release")),
        delay=st.sampled_from((0, 1, 10)),
    )
    def settle(self, indexes, outcome, delay):
        name, handle, chosen = self.choose(indexes)
        outcomes = {"ack": ACKED, "release": RELEASED, "delay": Delayed(delay)}
        refused = self.run(handle.settle([(d, outcomes.get(outcome) or Died(letter(d))) for d in chosen]))
        known = self.model[name]
        assert refused == [d for d in chosen if known[d.message.id].delivery is not d]
        for delivery in chosen:
            each = known[delivery.message.id]
            if delivery in refused:
                continue
            if outcome == "ack":
                each.finish("done")
            elif outcome == "die":
                each.finish("dead")
            elif outcome == "delay":
                each.finish("delayed", self.now + delay)
                each.attempt, each.failed = each.attempt + 1, True
            else:
                each.finish("ready")
                each.deliveries -= 1

    @precondition(lambda self: self.held)
    @rule(indexes=st.lists(INDEX, min_size=1, max_size=6))
    def extend(self, indexes):
        name, handle, chosen = self.choose(indexes)
        lease = next(lease for each, lease in self.handles[name] if each is handle)
        lost = self.run(handle.extend(chosen))
        for delivery in chosen:
            each = self.model[name][delivery.message.id]
            assert (each.delivery is delivery) == (delivery not in lost)
            if each.delivery is delivery:
                each.until = self.now + lease

    @rule(name=st.sampled_from(SUBSCRIPTIONS), index=INDEX)
    def crash(self, name, index):
        """Let a worker die, or leave: its handle says nothing more, and another takes its place."""
        handle, lease = self.handles[name].pop(index % len(self.handles[name]))
        self.run(handle.close())
        assert not self.run(handle.fetch(10, 1.0))
        self.held = [each for each in self.held if each[1] is not handle]
        if not self.handles[name]:
            self.open(name, lease)

    @rule(seconds=st.sampled_from((0.1, 1.0, 10.0, 30.0)))
    def advance(self, seconds):
        self.now += seconds

    @rule(name=st.sampled_from(SUBSCRIPTIONS), indexes=st.lists(INDEX, max_size=3), purge=st.booleans())
    def decide(self, name, indexes, purge):
        """Replay or purge some dead letters, with ids that are unknown or named twice among them."""
        letters = self.run(self.backend.dead_letters(*name))
        named = [letters[index % len(letters)] for index in indexes if letters]
        chosen = {dead.id: dead for dead in named}
        ids = [*chosen, *list(chosen)[:1], "unknown"]
        act = self.backend.purge if purge else self.backend.replay
        assert self.run(act(*name, ids)) == len(chosen)
        for dead in chosen.values():
            number = self.model[name][dead.message.id].number
            self.model[name][dead.message.id] = Known(number, "done" if purge else "ready", replayed=True)

    @invariant()
    def both_agree(self):
        expected = []
        for name, known in sorted(self.model.items()):
            places = ["ready" if each.available(self.now) else each.place for each in known.values()]
            counts = [places.count(place) for place in ("ready", "leased", "delayed", "dead")]
            expected.append(SubscriptionStatus(*name, *counts))
            dead = {dead.message.id for dead in self.run(self.backend.dead_letters(*name, limit=10_000))}
            assert dead == {id for id, each in known.items() if each.place == "dead"}
        assert list(self.run(self.backend.status())) == expected

    def teardown(self):
        """Once time has passed, all that is not settled comes, each once."""
        self.now += 1_000.0
        try:
            for name, known in self.model.items():
                handle = self.run(self.backend.subscribe(*name))
                came = self.run(handle.fetch(10_000, 0.0))
                left = [id for id, each in known.items() if each.place not in ("dead", "done")]
                assert sorted(delivery.message.id for delivery in came) == sorted(left)
                assert not self.run(handle.settle([(delivery, ACKED) for delivery in came]))
            self.run(self.backend.close())
        finally:
            self.loop.close()


def letter(delivery):
    message, reason = delivery.message, Reason("failed", "ValueError", "no stock")
    return DeadLetter("a.b/billing", message, reason, message.attempt, delivery.deliveries, 1.0, 2.0)


TestContract = Contract.TestCase
TestContract.settings = settings(
    max_examples=150,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
