"""The steps of the state machine that look at messages and that use the key-value store."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from abe_router.backend import Peeked

from .known import Kept, Known, Logged
from .world import World

NAMES = (("a.b", "billing"), ("a.*", "audit"), ("a.#", "late"))
KEYS = ("a.b", "a.c", "x.y")


class ViewMachine(RuleBasedStateMachine):
    """The steps; `Machine` adds the rest, and sets what stands here."""

    world: World
    backend: Any
    log: list[Logged]
    model: dict[tuple[str, str], dict[int, Known]]
    replays: Any

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[tuple[str, str], Kept] = {}
        self.revision = 0

    def run(self, coroutine: Any) -> Any:
        raise NotImplementedError

    @rule(name=st.sampled_from((*NAMES, None)), limit=st.integers(1, 20))
    def peek(self, name: tuple[str, str] | None, limit: int) -> None:
        """Look at a subscription, or without one at all that is retained."""
        if name is None:
            seen = {int(each.message.body) for each in self.pages("#", None, limit)}
            log = {logged.number for logged in self.log}
            assert seen >= log if self.world.replays_copies else seen == log
        else:
            self.peek_at(name, limit)

    def peek_at(self, name: tuple[str, str], limit: int) -> None:
        seen = self.pages(*name, limit)
        if name not in self.model:
            assert not seen
            return
        if self.world.replays_copies and self.replays:
            return
        known = {n: each for n, each in self.model[name].items() if each.place not in ("dead", "done")}
        assert sorted(int(each.message.body) for each in seen) == sorted(known)
        for each in seen:
            expected = known[int(each.message.body)]
            assert each.deliveries == expected.deliveries
            assert each.state in expected.states(self.world.now)
        for key in KEYS:
            of_key = [int(each.message.body) for each in seen if each.message.key == key]
            assert of_key == sorted(of_key)

    def pages(self, pattern: str, group: str | None, limit: int) -> list[Peeked]:
        seen: list[Peeked] = []
        cursor = ""
        while page := self.run(self.backend.peek(pattern, group, limit=limit, after=cursor)):
            assert len(page) <= limit
            assert page[-1].cursor != cursor
            seen += page
            cursor = page[-1].cursor
        return seen

    @rule(
        place=st.sampled_from((("a", "x"), ("a", "y"), ("b", "x"))),
        expects=st.sampled_from(("anything", "nothing", "the revision", "another revision")),
        ttl=st.sampled_from((None, 100.0, 1000.0)),
        delete=st.booleans(),
    )
    def write(self, place: tuple[str, str], expects: str, ttl: float | None, delete: bool) -> None:
        """Put or delete an entry."""
        if delete:
            self.delete(place, expects)
        else:
            self.put(place, expects, ttl)

    def put(self, place: tuple[str, str], expects: str, ttl: float | None) -> None:
        ttl = ttl if self.world.expires else None
        kept, expected = self.kept(place), self.expected(place, expects)
        value = b"%d" % (self.revision + 1)
        revision = self.run(self.backend.put(*place, value, expected=expected, ttl=ttl))
        assert bool(revision) == (expected in (None, kept.revision if kept else 0))
        if revision:
            assert revision > self.revision
            self.revision = revision
            until = math.inf if ttl is None else self.world.now + ttl
            self.entries[place] = Kept(value, revision, until)

    def delete(self, place: tuple[str, str], expects: str) -> None:
        kept, expected = self.kept(place), self.expected(place, expects)
        deleted = self.run(self.backend.delete(*place, expected=expected))
        assert deleted == (kept is not None and expected in (None, kept.revision))
        if deleted:
            del self.entries[place]

    def expected(self, place: tuple[str, str], expects: str) -> int | None:
        kept = self.kept(place)
        revision = kept.revision if kept else 0
        return {
            "anything": None,
            "nothing": 0,
            "the revision": revision,
            "another revision": revision + 1,
        }[expects]

    def kept(self, place: tuple[str, str]) -> Kept | None:
        found = self.entries.get(place)
        return found if found and found.until > self.world.now else None

    @invariant()
    def entries_agree(self) -> None:
        if not self.entries:
            return
        for bucket in ("a", "b"):
            found = self.run(self.backend.entries(bucket))
            kept = {name: self.kept((b, name)) for b, name in self.entries if b == bucket}
            assert {name: (each.value, each.revision) for name, each in found.items()} == {
                name: (each.value, each.revision) for name, each in kept.items() if each
            }
