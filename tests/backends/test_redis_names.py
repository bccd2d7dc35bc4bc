"""The names that the Redis provider stores."""

from __future__ import annotations

import os

import pytest

from abe_router.backends.redis.names import Names, consumer_name


def test_consumer_names_are_unique_across_a_fork():
    """Two live consumers of one name would each recover what the other one handles."""
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


def every_name(names: Names) -> list[str]:
    return [
        *(names.stream("a.b"), names.keys, names.new_keys, names.subscriptions, names.dropped),
        *(names.retention, names.revision, names.rate("r"), names.bucket("b"), names.expiry("b")),
        *(names.ids("a.b"), names.delayed("a.b", "g"), names.failures("a.b", "g"), names.dead("a.b", "g")),
        *(names.owner("a.b", "g"), names.released("a.b", "g")),
    ]


def test_a_stream_has_the_name_that_other_programs_expect():
    assert Names("shop.").stream("orders.created") == "shop.orders.created"
    assert Names("").stream("orders.created") == "orders.created"


@pytest.mark.parametrize("prefix", ["", "shop."])
def test_with_a_hash_tag_all_names_share_its_slot(prefix):
    """A cluster hashes the text between the first braces, and the whole name if that is empty."""
    for name in every_name(Names(prefix, "tag")):
        assert name.partition("{")[2].partition("}")[0] == "tag"


@pytest.mark.parametrize("tag", ["", "tag"])
def test_names_are_distinct_and_none_is_taken_for_a_stream(tag):
    names = Names("shop.", tag)
    stream, *others = every_name(names)
    assert len({stream, *others}) == 1 + len(others)
    assert names.key(stream) == "a.b"
    assert [names.key(name) for name in others] == [None] * len(others)


@pytest.mark.parametrize("names", [("{app}.", ""), ("", "{app}"), ("a}", "")])
def test_a_brace_in_prefix_or_tag_is_refused(names):
    with pytest.raises(ValueError, match="no brace"):
        Names(*names)
