"""Answers of a Redis server, damaged on their way: broken RESP, wrong types, huge lengths, cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any

from abe_router.backends.redis import RedisBackend
from abe_router.errors import BackendError
from abe_router.messages.message import Message
from fuzz.corpus import Corpus
from fuzz.resp import DamagingProxy
from fuzz.target.redis_target import RedisTarget
from fuzz.target.row import fill, operate
from fuzz.target.target import Input, demand
from fuzz.working import Working

_ANSWERS = (
    *(b"$-1\r\n", b"*-1\r\n", b"*0\r\n", b"$0\r\n\r\n", b":0\r\n", b":-1\r\n", b":9223372036854775807\r\n"),
    *(b"+OK\r\n", b"+\r\n", b"-ERR no\r\n", b"-\r\n", b"-NOSCRIPT no\r\n", b"-LOADING wait\r\n"),
    *(b"-READONLY no\r\n", b"-WRONGTYPE no\r\n", b"-NOGROUP no\r\n", b"-MOVED 1 h:1\r\n", b"-NOAUTH no\r\n"),
    *(
        b"$1\r\na\r\n",
        b"$3\r\nnan\r\n",
        b"$2\r\n\xff\xfe\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n:1\r\n",
        b"*2\r\n*0\r\n*0\r\n",
    ),
    *(b"*1\r\n*2\r\n$1\r\na\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*-1\r\n", b"*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n"),
    *(
        b"*2\r\n$1\r\n0\r\n*1\r\n$-1\r\n",
        b"%0\r\n",
        b"_\r\n",
        b"#t\r\n",
        b",nan\r\n",
        b"~0\r\n",
        b">1\r\n+x\r\n",
    ),
    *(
        b"$10737418240\r\nabc",
        b"*2147483647\r\n",
        b"$99999999999999999999\r\n",
        b"*1\r\n" * 3000,
        b"HTTP/1.1 400\r\n",
    ),
    *(b"\x00\xff", b"$5\r\nabc\r\n", b":abc\r\n", b"*abc\r\n", b"", b"+OK\r\n+OK\r\n"),
)


class AnswerTarget(RedisTarget):
    """Passes everything to a real server and damages single answers of it."""

    name = "answer"
    about = "damaged answers of a Redis server give documented errors; after them everything works"
    short = 15
    seconds = 6.0

    def make(self, random: Random, corpus: Corpus) -> Input:  # noqa: ARG002
        """Return which answers are replaced, by their number, with what, and what happens after that."""
        count = random.choice((1, 1, 2, 5, 20))
        numbers = [random.randrange(random.choice((4, 20, 120))) for _ in range(count)]
        return [
            [number, random.choice(_ANSWERS), random.choice(("replace", "replace", "cut", "insert", "drop"))]
            for number in numbers
        ]

    def check(self, given: Input) -> None:
        """Use a backend through the proxy; then demand that the next message is handled."""
        asyncio.run(self._use(given))

    async def _use(self, damages: Sequence[Any]) -> None:
        loop, unhandled = asyncio.get_running_loop(), list[str]()
        loop.set_exception_handler(
            lambda _, context: unhandled.append(f"{context['message']}: {context.get('exception')!r}")
        )
        port = int(self.server.url.rpartition(":")[2].partition("/")[0])

        async def handle(_: Message) -> None:
            pass

        async with DamagingProxy(port, damages) as proxy:
            url = f"redis://127.0.0.1:{proxy.port}/0?socket_timeout=1"
            backend = RedisBackend.from_url(url)
            try:
                async with asyncio.timeout(30), backend:
                    await fill(backend)
                    async with Working(backend, "odd", handle):
                        await operate(backend, peeks=False)
            except BackendError:
                pass
            finally:
                await backend.close()
            proxy.damages = {}
            async with backend, Working(backend, "even", handle) as even:
                await backend.publish("even", 1, id="last")
                await even.until(lambda: even.handled["last"] >= 1, "the next message is handled")
                await backend.drop("even", "g")
        async with RedisBackend.from_url(self.server.url) as clean:
            for status in await clean.status():
                await clean.drop(status.pattern, status.group)
        demand(not unhandled, f"the event loop reports {unhandled}")
