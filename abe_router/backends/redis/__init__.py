"""The Redis Streams backend: durable, shared by any number of processes and machines.

A message is an entry of the stream named PREFIX+KEY, with its JSON payload in the field `data`, so other
programs can write to it and read from it with plain Redis commands. A delivery that is in hand is an entry
of a consumer group's pending list, and its lease is the time since it was last claimed.
"""

from abe_router.backends.redis.backend import RedisBackend

__all__ = ["RedisBackend"]
