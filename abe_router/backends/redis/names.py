"""Every name that is stored in Redis.

The stream of a key is PREFIX+KEY, so that other programs find it. Every other name holds a brace, which no
routing key does, so none of them can be taken for a stream. What belongs to a stream carries the stream's
name in braces, what belongs to all of them the prefix.

On a Redis Cluster all names begin with one hash tag, `{TAG}`, and share its slot. A cluster hashes the text
between the first braces of a name, so the later ones do not matter there. An empty tag would be none.
"""

from __future__ import annotations

import os
import re
import secrets
import socket

from abe_router.messages.pattern import is_key, is_wild

#: The hash tag on a cluster if the URL has none and the prefix is empty; otherwise the prefix is the tag.
CLUSTER_TAG = "abe-router"
#: What stands in place of a key for the outbox of a hash tag: no routing key holds a brace.
OUTBOX = "{outbox}"


class Names:
    """The names under one prefix, and on a cluster with one hash tag.

    Raise ValueError when the prefix or the tag holds a brace.
    """

    def __init__(self, prefix: str, tag: str = "") -> None:
        for what, text in (("a prefix", prefix), ("a hash tag", tag)):
            if "{" in text or "}" in text:
                raise ValueError(f"{what} may hold no brace")
        self.prefix, self.tag = prefix, tag
        slot = f"{{{tag}}}" if tag else ""
        #: What the names of all streams begin with.
        self.streams = slot + prefix
        #: What all other names begin with.
        self.others = f"{slot}abe-router:{{{prefix}"
        #: Set of the keys that have a stream.
        self.keys = f"{self.others}}}:keys"
        #: Stream that gets an entry when `keys` grows.
        self.new_keys = f"{self.others}}}:new_keys"
        #: Hash of the subscriptions to where they start, in milliseconds since the epoch.
        self.subscriptions = f"{self.others}}}:subscriptions"
        #: Set of the subscriptions that were dropped and not made again.
        self.dropped = f"{self.others}}}:dropped"
        #: Hash of what callers of `trim` want kept, as `MILLISECONDS PATTERN`, to until when that counts.
        self.retention = f"{self.others}}}:retention"
        #: Hash of what other programs did to groups, and of how many messages each of them lost by it.
        self.changes = f"{self.others}}}:changes"
        #: Sorted set of the outputs that were moved here from an outbox, by until when, in milliseconds.
        self.moved = f"{self.others}}}:moved"
        #: The last revision of the key-value store.
        self.revision = f"{self.others}}}:revision"

    def rate(self, name: str) -> str:
        """Return the name of the state of a rate that all processes share."""
        return f"{self.others}}}:rate:{name}"

    def bucket(self, bucket: str) -> str:
        """Return the name of the hash of a bucket's entries, each `REVISION:UNTIL:VALUE`."""
        return f"{self.others}}}:bucket:{bucket}"

    def expiry(self, bucket: str) -> str:
        """Return the name of the sorted set of a bucket's entries that expire, by when, in milliseconds."""
        return f"{self.others}}}:expiry:{bucket}"

    def stream(self, key: str) -> str:
        """Return the name of the stream of a key."""
        return self.streams + key

    def key(self, stream: str) -> str | None:
        """Return the key whose stream has that name, None if there is none."""
        key = stream.removeprefix(self.streams)
        return key if stream.startswith(self.streams) and is_key(key) else None

    @property
    def glob(self) -> str:
        """The glob-style pattern that matches the names of all streams."""
        return escape_glob(self.streams) + "*"

    def delayed(self, key: str, group: str) -> str:
        """Return the name of the sorted set of the entries that wait for another attempt.

        They are ordered by when it is due, in milliseconds.
        """
        return f"{self.others}{key}}}:delayed:{group}"

    def failures(self, key: str, group: str) -> str:
        """Return the name of the hash of failed entries to how often and since when: `COUNT:MILLISECONDS`."""
        return f"{self.others}{key}}}:failures:{group}"

    def ids(self, key: str) -> str:
        """Return the name of the sorted set of remembered message ids, by until when, in milliseconds."""
        return f"{self.others}{key}}}:ids"

    def owner(self, key: str, group: str) -> str:
        """Return the name of the owner of a stream, `UNTIL CONSUMER`, with the time in milliseconds."""
        return f"{self.others}{key}}}:owner:{group}"

    def released(self, key: str, group: str) -> str:
        """Return the name of the stream that gets an entry when an owner releases the stream."""
        return f"{self.others}{key}}}:released:{group}"

    def dead(self, key: str, group: str) -> str:
        """Return the name of the stream of dead letters."""
        return f"{self.others}{key}}}:dead:{group}"


def escape_glob(text: str) -> str:
    """Return the glob-style pattern that matches `text` alone."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)


def group_name(pattern: str, group: str) -> str:
    """Return the name of the consumer group: that of a pattern differs from that of a key it matches."""
    return f"{pattern}/{group}" if is_wild(pattern) else group


def subscription_name(pattern: str, group: str) -> str:
    """Return the name of a subscription. It reads one way only, because a group holds no slash."""
    return f"{pattern}/{group}"


def consumer_name(lease: float) -> str:
    """Return a consumer name that no other handle, process or host has had.

    The lease, in milliseconds, is part of it: it says when the entries of a dead consumer may be claimed.
    """
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}/lease={round(lease * 1000)}"


def lease_of(consumer: bytes) -> float:
    """Return the lease of a consumer in seconds, 0 for one of another program."""
    found = re.search(rb"/lease=(\d{1,15})$", consumer)
    return int(found[1]) / 1000 if found else 0.0


def position_before(millis: int) -> str:
    """Return the last position before a time: a group there gets the entries of that time and later."""
    return f"{millis - 1}-{2**64 - 1}" if millis > 0 else "0-0"
