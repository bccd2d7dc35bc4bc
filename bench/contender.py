"""Who takes part: what it is, where it keeps messages, and how much of a backlog it is given."""

from __future__ import annotations

from dataclasses import dataclass

#: The backlog of those who are fast.
BACKLOG = 100_000


@dataclass(frozen=True, slots=True)
class Contender:
    """One column of the table.

    `module` is run in the environment of `pins`, or in this one. `keeps` is where messages are kept.
    `backlog` is how many messages it drains: enough for a second or two, for a rate does not depend on it.
    `uvloop` is False for those who are measured without it.
    """

    name: str
    title: str
    module: str
    backlog: int
    keeps: str = "redis"
    pins: str = ""
    uvloop: bool = True

    @property
    def is_ours(self) -> bool:
        """Whether it is abe-router."""
        return self.module == "abe"


LOOP = Contender("loop", "hand-written loop", "loop", BACKLOG)
REDIS = Contender("redis", "abe-router on Redis", "abe", BACKLOG)
SQLITE = Contender("sqlite", "abe-router on SQLite", "abe", BACKLOG, keeps="sqlite")
MEMORY = Contender("memory", "abe-router in memory", "abe", BACKLOG, keeps="memory")
FASTSTREAM = Contender("faststream", "FastStream", "faststream", 6_000, pins="faststream")

SHORT = (LOOP, REDIS, SQLITE, MEMORY, FASTSTREAM)
LONG = (
    *SHORT,
    Contender("redis-asyncio", "abe-router on Redis, without uvloop", "abe", BACKLOG, uvloop=False),
    Contender("usual", "usual loop", "usual", 10_000),
    Contender("faststream-guide", "FastStream as in its guide", "faststream_guide", 6_000, pins="faststream"),
    Contender("faststream-batch", "FastStream, lists of 500", "faststream_batch", BACKLOG, pins="faststream"),
    Contender("taskiq", "taskiq", "taskiq", 6_000, pins="taskiq"),
    Contender("dramatiq", "dramatiq", "dramatiq", 6_000, pins="dramatiq"),
    Contender("celery", "celery", "celery", 3_000, pins="celery"),
)
