"""One routes file over many masters of a Redis Cluster: its keys are spread over several hash tags.

A *partition* is what lies under one hash tag: the backend of a file without `slots`, whole and unchanged. The
partition of a key follows from the key. Here stands what joins the partitions to one backend: calls go to the
partition of a key, answers are merged (`backend`, `pages`), one handle fetches from many (`subscription`,
`fetching`), and what a handler emits to another partition goes through an `outbox` and a `mover`.
"""

from abe_router.backends.redis.partitioned.backend import PartitionedRedisBackend

__all__ = ["PartitionedRedisBackend"]
