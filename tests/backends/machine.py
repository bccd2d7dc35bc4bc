"""A state machine that makes the same steps on a provider and on a model of the contract, and compares them.

The model knows the state and the history of each message in each subscription. After every step both must
agree on what was delivered, what was refused, and all counts.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from typing import Any, ClassVar

import hypothesis.strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from abe_router.backend import (
    ACKED,
    RELEASED,
    Acked,
    Dead,
    DeadLetter,
    Delayed,
    Delivery,
    Reason,
    retention,
)
from abe_router.errors import SubscriptionClosed
from abe_router.messages.message import Message
from abe_router.messages.pattern import matches

from .known import Handle, Known, Logged
from .view_machine import KEYS, NAMES, ViewMachine
from .world import World

#: Subscriptions that exist from the beginning; the third comes and goes.
FIRST = NAMES[:2]
INDEX = st.integers(0, 10_000)
#: In seconds. A run takes far less real time than the shortest.
LEASES, STEPS = st.sampled_from((100.0, 1000.0, 3000.0)), st.sampled_from((10.0, 100.0, 1000.0, 3000.0))
LONG = 1e6
HOW, DELAY = (
    st.sampled_from(("ack", "emit", "delay", "die", "release")),
    st.sampled_from((0.0, 100.0, 1000.0)),
)


def number(delivery: Delivery | DeadLetter) -> int:
    return int(delivery.message.body)


class Machine(ViewMachine):
    """The steps; a subclass sets the provider."""

    make_world: ClassVar[Any]

    @initialize(retain=st.sampled_from(({}, {}, {"#": 100.0}, {"a.b": 1000.0})))
    def begin(self, retain: dict[str, float]) -> None:
        self.retain = retain  # one for the whole run: a retention holds for a day
        self.loop = asyncio.new_event_loop()
        self.world: World = self.run(self.in_loop(type(self).make_world))
        self.backend = self.world.backend
        self.log: list[Logged] = []
        self.appended = 0
        self.remembered: dict[tuple[str, str], float] = {}
        self.model: dict[tuple[str, str], dict[int, Known]] = {}
        self.handles: list[Handle] = []
        self.replays: Counter[tuple[str, str]] = Counter()
        for name in FIRST:
            self.subscribe(name, 100.0)

    async def in_loop(self, make: Any) -> Any:
        return make()

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    # Publishing.

    def messages(self, key: str, *ids: str) -> list[Message]:
        made = []
        for id in ids:
            self.appended += 1
            made.append(Message(id or f"m{self.appended}", key, b"%d" % self.appended, {}, self.world.now, 1))
        return made

    def keep(self, messages: list[Message]) -> None:
        for message in messages:
            logged = Logged(int(message.body), message.id, message.key, message.published_at)
            self.log.append(logged)
            for name, known in self.model.items():
                if matches(name[0], message.key):
                    known[logged.number] = Known(logged)

    def not_remembered(self, messages: list[Message], window: float) -> list[Message]:
        kept = []
        for message in messages:
            if self.remembered.get((message.key, message.id), 0.0) <= self.world.now:
                self.remembered[message.key, message.id] = self.world.now + window
                kept.append(message)
        return kept

    @rule(key=st.sampled_from(KEYS), count=st.integers(1, 5))
    def append(self, key: str, count: int) -> None:
        messages = self.messages(key, *[""] * count)
        self.run(self.backend.append(messages))
        self.keep(messages)

    @rule(
        key=st.sampled_from(KEYS[:2]),
        ids=st.lists(st.sampled_from("abc"), min_size=1, max_size=3),
        window=st.sampled_from((100.0, 1000.0)),
    )
    def append_once(self, key: str, ids: list[str], window: float) -> None:
        messages = self.messages(key, *ids)
        kept = self.not_remembered(messages, window)
        passed_over = self.run(self.backend.append_once([(message, window) for message in messages]))
        assert sorted(m.body for m in passed_over) == sorted(m.body for m in messages if m not in kept)
        self.keep(kept)

    # Subscribing and leaving.

    @precondition(lambda self: len(self.handles) < 5)
    @rule(name=st.sampled_from(NAMES), lease=LEASES, latest=st.booleans(), since=INDEX)
    def open(self, name: tuple[str, str], lease: float, latest: bool, since: int) -> None:
        at = self.log[since % len(self.log)].at if self.log and self.world.dates and since % 2 else 0.0
        self.subscribe(name, lease, math.inf if latest else at)

    def subscribe(self, name: tuple[str, str], lease: float, start: float = 0.0) -> None:
        if name not in self.model:
            begun = [logged for logged in self.log if matches(name[0], logged.key) and logged.at >= start]
            self.model[name] = {logged.number: Known(logged) for logged in begun}
        self.handles.append(
            Handle(name, self.run(self.backend.subscribe(*name, start=start, lease=lease)), lease)
        )

    @rule(index=INDEX, killed=st.booleans())
    def leave(self, index: int, killed: bool) -> None:
        """Kill or stop a worker, and start another with the same subscription."""
        handle = self.handles.pop(index % len(self.handles))
        self.subscribe(handle.name, handle.lease)
        if killed:
            self.run(self.world.abandon(handle.real))
        else:
            self.run(handle.real.close())
            try:
                self.run(handle.real.fetch(10, 1.0))
            except SubscriptionClosed:
                return
            raise AssertionError("a fetch on a closed handle did not raise SubscriptionClosed")

    @precondition(lambda self: NAMES[-1] in self.model and not self.replays[NAMES[-1]])
    @rule()
    def drop(self) -> None:
        name = NAMES[-1]
        for handle in [handle for handle in self.handles if handle.name == name]:
            self.run(handle.real.close())
            self.handles.remove(handle)
        assert self.run(self.backend.drop(*name))
        assert not self.run(self.backend.drop(*name))
        del self.model[name]

    # Deliveries and their outcomes.

    @rule(index=INDEX, limit=st.integers(1, 6))
    def fetch(self, index: int, limit: int) -> None:
        self.take(index, limit)

    def take(self, index: int, limit: int) -> tuple[Handle, list[Delivery]]:
        handle = self.handles[index % len(self.handles)]
        known = self.model[handle.name]
        available = {number: each for number, each in known.items() if each.is_available(self.world.now)}
        fresh = {
            key: [n for n, each in available.items() if each.is_fresh(self.world) and each.logged.key == key]
            for key in KEYS
        }
        self.run(self.world.look())
        came = self.run(handle.real.fetch(limit, 0.0))
        most = min(limit, len(available))
        assert len(came) == most if self.world.fetches_all else min(most, 1) <= len(came) <= most
        assert len({number(delivery) for delivery in came}) == len(came)
        for delivery in came:
            each = available[number(delivery)]
            assert (delivery.message.id, delivery.message.key) == (each.logged.id, each.logged.key)
            if each.is_fresh(self.world):
                assert fresh[each.logged.key].pop(0) == each.logged.number
            assert (delivery.deliveries, delivery.message.attempt) == (each.deliveries + 1, each.attempt)
            assert (delivery.failed_at is not None) == (each.attempt > 1)
            each.deliveries += 1
            each.place, each.until, each.delivery = "leased", self.world.now + handle.lease, delivery
            each.holder = handle
        handle.handed += came
        return handle, came

    def choose(self, indexes: list[int]) -> tuple[Handle, list[Delivery]]:
        """Return some of the deliveries, current or stale, of one handle."""
        having = [handle for handle in self.handles if handle.handed]
        handle = having[indexes[0] % len(having)]
        chosen = [handle.handed[index % len(handle.handed)] for index in indexes]
        alike = (lambda delivery: delivery) if self.world.tells_apart else number
        return handle, list({alike(delivery): delivery for delivery in chosen}.values())

    def is_held(self, handle: Handle, delivery: Delivery) -> bool:
        each = self.model[handle.name][number(delivery)]
        if each.delivery is delivery or each.delivery is None or self.world.tells_apart:
            return each.delivery is delivery
        # A replay may have made another entry of the message, with a receipt of its own.
        same = each.deliveries == delivery.deliveries and each.delivery.receipt == delivery.receipt
        return each.holder is handle and same

    @rule(index=INDEX, limit=st.integers(1, 6), how=HOW, delay=DELAY, key=st.sampled_from(KEYS))
    def work(self, index: int, limit: int, how: str, delay: float, key: str) -> None:
        """Fetch some deliveries and settle them."""
        self.end(*self.take(index, limit), how, delay, key)

    @precondition(lambda self: any(handle.handed for handle in self.handles))
    @rule(indexes=st.lists(INDEX, min_size=1, max_size=6), how=HOW, delay=DELAY, key=st.sampled_from(KEYS))
    def settle(self, indexes: list[int], how: str, delay: float, key: str) -> None:
        """Settle deliveries that were fetched at any earlier step."""
        self.end(*self.choose(indexes), how, delay, key)

    def end(self, handle: Handle, chosen: list[Delivery], how: str, delay: float, key: str) -> None:
        held = [delivery for delivery in chosen if self.is_held(handle, delivery)]
        outputs = {delivery: self.messages(key, "") for delivery in chosen}
        outcomes = {
            "ack": lambda delivery: ACKED,
            "emit": lambda delivery: Acked(tuple(outputs[delivery])),
            "delay": lambda delivery: Delayed(delay),
            "die": lambda delivery: Dead(dead_letter(delivery)),
            "release": lambda delivery: RELEASED,
        }
        at_once = how != "emit" or self.world.emits_in_order
        refused: list[Delivery] = []
        for part in [chosen] if at_once else [[delivery] for delivery in chosen]:
            settlements = [(delivery, outcomes[how](delivery)) for delivery in part]
            refused += self.run(handle.real.settle(settlements))
            self.run(self.world.outputs_arrive())
        assert set(refused) == set(chosen) - set(held)
        assert len(refused) == len(chosen) - len(held)
        for delivery in held:
            each = self.model[handle.name][number(delivery)]
            if how == "delay":
                each.finish("delayed", self.world.now + delay)
                each.attempt += 1
            elif how == "release":
                each.finish("ready")
                each.deliveries -= 1
            else:
                each.finish("dead" if how == "die" else "done")
            if how == "emit":
                self.keep(outputs[delivery])

    @precondition(lambda self: any(handle.handed for handle in self.handles))
    @rule(indexes=st.lists(INDEX, min_size=1, max_size=6))
    def extend(self, indexes: list[int]) -> None:
        handle, chosen = self.choose(indexes)
        held = [delivery for delivery in chosen if self.is_held(handle, delivery)]
        assert set(self.run(handle.real.extend(chosen))) == set(chosen) - set(held)
        for delivery in held:
            self.model[handle.name][number(delivery)].until = self.world.now + handle.lease

    @precondition(lambda self: self.is_anywhere("leased", "delayed"))
    @rule(seconds=STEPS)
    def advance(self, seconds: float) -> None:
        self.run(self.world.advance(seconds))

    def is_anywhere(self, *places: str) -> bool:
        return any(each.place in places for known in self.model.values() for each in known.values())

    # Dead letters and retention.

    @precondition(lambda self: self.is_anywhere("dead"))
    @rule(name=st.sampled_from(FIRST), indexes=st.lists(INDEX, max_size=3), purge=st.booleans())
    def decide(self, name: tuple[str, str], indexes: list[int], purge: bool) -> None:
        """Replay or purge some dead letters, with unknown and repeated ids among them."""
        letters = self.run(self.backend.dead_letters(*name))
        named = [letters[index % len(letters)] for index in indexes if letters]
        chosen = {dead.id: dead for dead in named}
        ids = [*chosen, *list(chosen)[:1], "unknown"]
        assert self.run((self.backend.purge if purge else self.backend.replay)(*name, ids)) == len(chosen)
        for dead in chosen.values():
            logged = self.model[name][number(dead)].logged
            self.model[name][logged.number] = Known(logged, "done" if purge else "ready", replayed=True)
        self.replays[name] += 0 if purge else len(chosen)

    @precondition(lambda self: self.is_anywhere("done", "dead"))
    @rule()
    def trim(self) -> None:
        """Trim; a new subscription to every key shows what is left."""
        count = self.run(self.backend.trim(self.retain))
        shown = self.everything()
        gone = {logged.number for logged in self.log} - shown
        may = {logged.number for logged in self.log if self.is_settled(logged, "done", "dead")}
        must = {logged.number for logged in self.log if self.is_settled(logged, "done")}
        assert gone <= may
        if self.world.trims_all:
            assert must <= gone
            assert count == len(gone)
        self.log = [logged for logged in self.log if logged.number in shown]

    def is_settled(self, logged: Logged, *places: str) -> bool:
        """Whether every subscription of its key has settled it, and it is old enough."""
        readers = [known for name, known in self.model.items() if matches(name[0], logged.key)]
        found = [known[logged.number] for known in readers if logged.number in known]
        settled = all(each.place in places or self.is_copied(each) for each in found)
        age = self.world.now - logged.at
        return bool(readers) and settled and age >= retention(self.retain, logged.key)

    def is_copied(self, known: Known) -> bool:
        return self.world.replays_copies and known.replayed

    def everything(self) -> set[int]:
        handle = self.run(self.backend.subscribe("#", "witness", lease=LONG))
        shown = {number(delivery) for delivery in self.drained(handle)}
        assert self.run(self.backend.drop("#", "witness"))
        return shown

    def drained(self, handle: Any) -> list[Delivery]:
        found: list[Delivery] = []
        self.run(self.world.look())
        while came := self.run(handle.fetch(10_000, 0.0)):
            found += came
        return found

    # Invariants.

    @invariant()
    def both_agree(self) -> None:
        status = self.run(self.backend.status())
        assert [(s.pattern, s.group) for s in status] == sorted(self.model)
        for counts in status:
            name, now = (counts.pattern, counts.group), self.world.now
            known = self.model[name].values()
            ready = sum(each.is_available(now) for each in known)
            held = sum(each.place == "leased" and each.until > now for each in known)
            later = sum(each.place == "delayed" and each.until > now for each in known)
            # Until it is fetched, a message that is due again may be counted in its earlier state.
            lapsed = sum(each.place == "leased" and each.until <= now for each in known)
            failed = sum(each.is_available(now) and each.attempt > 1 for each in known)
            dead = {each.logged.number for each in known if each.place == "dead"}
            copies = sum(self.replays.values()) - self.replays[name] if self.world.replays_copies else 0
            assert held <= counts.in_flight <= held + lapsed
            assert later <= counts.delayed <= later + failed
            total = counts.ready + counts.in_flight + counts.delayed
            assert ready + held + later <= total <= ready + held + later + copies
            assert counts.dead == len(dead)
            assert counts.name == f"{counts.pattern}/{counts.group}"
            if self.world.dates and not any(each.replayed for each in known):
                # A failed message that was handed back may still be counted as delayed.
                fresh = (each for each in known if each.place == "ready" and each.attempt == 1)
                surely = min((each.logged.at for each in fresh), default=math.inf)
                at_most = min((each.logged.at for each in known if each.is_available(now)), default=math.inf)
                oldest = math.inf if counts.oldest_at is None else counts.oldest_at
                assert at_most - 0.001 <= oldest <= surely + 0.001
            assert {number(dead) for dead in self.run(self.backend.dead_letters(*name, limit=10_000))} == dead

    def teardown(self) -> None:
        """Let time pass; then each message that is not settled comes once."""
        try:
            self.run(self.world.advance(10_000.0))
            for name, known in self.model.items():
                handle = self.run(self.backend.subscribe(*name, lease=LONG))
                came = self.drained(handle)
                left = [n for n, each in known.items() if each.place not in ("dead", "done")]
                assert sorted(map(number, came)) == sorted(left)
                assert not self.run(handle.settle([(delivery, ACKED) for delivery in came]))
        finally:
            self.run(self.world.end())
            self.loop.close()


def dead_letter(delivery: Delivery) -> DeadLetter:
    message, reason = delivery.message, Reason("failed", "ValueError", "no stock")
    return DeadLetter("a.b/billing", message, reason, message.attempt, delivery.deliveries, 1.0, 2.0)
