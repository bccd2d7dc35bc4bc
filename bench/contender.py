"""The contenders: their programs, their storage, and the size of their backlogs."""

from __future__ import annotations

from dataclasses import dataclass

#: The backlog of fast contenders.
BACKLOG = 100_000


@dataclass(frozen=True, slots=True)
class Contender:
    """One column of the table.

    `module` runs in the environment of `pins`, or in this environment. `storage` is where its messages are.
    `backlog` is the number of messages that it drains: enough for a second or two. `uvloop` is False for a
    contender that is measured without it. `rows` are the measurements in which it takes part, if not in all.
    """

    name: str
    title: str
    module: str
    backlog: int
    storage: str = "redis"
    pins: str = ""
    uvloop: bool = True
    rows: tuple[str, ...] = ()

    @property
    def is_ours(self) -> bool:
        """Whether it is abe-router."""
        return self.module == "abe"


LOOP = Contender("loop", "hand-written loop", "loop", BACKLOG)
REDIS = Contender("redis", "abe-router on Redis", "abe", BACKLOG)
SQLITE = Contender("sqlite", "abe-router on SQLite", "abe", BACKLOG, storage="sqlite")
MEMORY = Contender("memory", "abe-router in memory", "abe", BACKLOG, storage="memory")
FASTSTREAM = Contender("faststream", "FastStream", "faststream", 6_000, pins="faststream")

SHORT = (LOOP, REDIS, SQLITE, MEMORY, FASTSTREAM)
LONG = (
    *SHORT,
    Contender("redis-asyncio", "abe-router on Redis, without uvloop", "abe", BACKLOG, uvloop=False),
    Contender("floor", "decode, check, await", "floor", BACKLOG, storage="memory", rows=("drain", "payload")),
    Contender("usual", "usual loop", "usual", 10_000),
    Contender("faststream-guide", "FastStream as in its guide", "faststream_guide", 6_000, pins="faststream"),
    Contender("faststream-batch", "FastStream, lists of 500", "faststream_batch", BACKLOG, pins="faststream"),
    Contender("taskiq", "taskiq", "taskiq", 6_000, pins="taskiq"),
    Contender("dramatiq", "dramatiq", "dramatiq", 6_000, pins="dramatiq"),
    Contender("celery", "celery", "celery", 3_000, pins="celery"),
    Contender("bullmq", "BullMQ", "bullmq", 20_000, pins="bullmq"),
    Contender("arq", "arq", "arq", 3_000, pins="arq"),
    Contender("saq", "saq", "saq", 3_000, pins="saq"),
    Contender("streaq", "streaq", "streaq", 3_000, pins="streaq"),
    Contender("huey", "huey", "huey", 3_000, pins="huey"),
    Contender("huey-sqlite", "huey on SQLite", "huey", 3_000, storage="sqlite", pins="huey"),
)
