"""The Redis Streams backend: durable, shared by any number of processes and machines.

A message is an entry of the stream named PREFIX+KEY, with its JSON payload in the field `data`, so other
programs can write and read it with plain Redis commands. A delivery in flight is an entry of a consumer
group's pending list, and its lease is the time since it was last claimed.

The parts, from the bottom: `protocol` (one socket), `finder` (where the server is), `redirection` (refused
commands go again) and `connection` (reconnecting), `notifier` and `reaper` (what wakes a handle), `registry`
and `discovery` (what all processes share), `appender`, the `node` that owns all of these, `reader` and
`settlement` (what a handle does), and the two handles, `subscription` and `exclusive`.
"""

from abe_router.backends.redis.backend import RedisBackend

__all__ = ["RedisBackend"]
