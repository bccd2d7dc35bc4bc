"""A message through its whole life: published, failed, a dead letter, replayed, handled."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from random import Random

from abe_router.backends import make_backend
from abe_router.errors import IdInvalid, KeyInvalid, PayloadMalformed, PayloadUnencodable
from abe_router.messages.message import Message, decode, new_message
from fuzz.corpus import Corpus
from fuzz.grammar import json_value
from fuzz.mutate import mutate_bytes
from fuzz.target.target import Input, Target, demand
from fuzz.working import Working

_TEXTS = ("", "a", "é", "\x00", "a\nb", "::", "{}", "\U0001f600", "\ud800", "x" * 300, "abe-hops", "9" * 30)
_KEYS = ("orders.created", "a", "a.b.c", "A:_@=+~-", "0", "x" * 255)


class RoundTripTarget(Target):
    """Sends messages with any body, headers and id through a router on one kind of backend."""

    about = "publish, dead letter, replay, handle: body, headers and id come back as they were"

    def __init__(self, scheme: str) -> None:
        self.name = f"trip-{scheme}"
        self._scheme = scheme

    def open(self, folder: Path) -> None:
        """Start each case with the same backend."""
        super().open(folder)
        self._url = "memory://" if self._scheme == "memory" else f"sqlite:///{folder}/queue.db"

    def make(self, random: Random, corpus: Corpus) -> Input:
        """Return a key, an id, headers and a body, which is often JSON."""
        body = json.dumps(json_value(random), ensure_ascii=random.random() < 0.5)
        data = body.encode(errors="replace")
        if random.random() < 0.3:
            data = mutate_bytes(random, data, [json.dumps(each).encode() for each in corpus.payloads])
        headers = {random.choice(_TEXTS): random.choice(_TEXTS) for _ in range(random.randrange(3))}
        id = random.choice((f"{random.random()}", random.choice(_TEXTS)))
        return [random.choice(_KEYS), id, headers, data]

    def check(self, given: Input) -> None:
        """Publish the message, unless its parts are refused, and follow it."""
        key, id, headers, body = given
        try:
            message = new_message(key, body, headers=headers, id=id)
        except (KeyInvalid, IdInvalid, PayloadUnencodable):
            return
        asyncio.run(self._follow(message))

    async def _follow(self, message: Message) -> None:
        delivered: list[Message] = []

        async def handle(each: Message) -> None:
            delivered.append(each)
            if len(delivered) == 1:
                raise ValueError("the first attempt fails")

        try:
            decode(message.body)
            runs = True
        except PayloadMalformed:
            runs = False
        id, key = message.id, message.key
        async with make_backend(self._url) as backend, Working(backend, key, handle) as working:
            await backend.append([message])
            await working.until(lambda: working.dead[id] == 1, "the message becomes a dead letter")
            (dead,) = await backend.dead_letters(key, "g")
            _demand_same(dead.message, message)
            demand(await backend.replay(key, "g", [dead.id]) == 1, "it is not replayed")
            if runs:
                await working.until(lambda: working.handled[id] == 1, "the replayed message is handled")
                demand(len(delivered) == 2, f"the handler ran {len(delivered)} times")
                for each in delivered:
                    _demand_same(each, message)
            else:
                await working.until(lambda: working.dead[id] == 2, "the replayed message fails again")
                (dead,) = await backend.dead_letters(key, "g")
                _demand_same(dead.message, message)
                await backend.purge(key, "g", [dead.id])
            demand(not await backend.dead_letters(key, "g"), "a dead letter is left")


def _demand_same(found: Message, sent: Message) -> None:
    for part in ("id", "key", "body", "headers"):
        here, there = getattr(found, part), getattr(sent, part)
        demand(here == there, f"{part} comes back as {here!r}, it was {there!r}")
