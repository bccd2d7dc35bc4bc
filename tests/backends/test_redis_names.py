"""What the Redis provider calls things: who holds what must never be taken for somebody else."""

from __future__ import annotations

import os

from abe_router.backends.redis.names import consumer_name


def test_no_two_handles_have_one_name_not_even_across_a_fork():
    """Two live consumers of one name would each take what the other has in hand for its own."""
    names = [consumer_name(30.0) for _ in range(1000)]
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(write, consumer_name(30.0).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    names.append(os.read(read, 1000).decode())
    os.close(read)
    os.close(write)
    assert len(set(names)) == 1001
    assert {name.rpartition("/lease=")[2] for name in names} == {"30000"}
