"""How things are called in Redis.

The stream of a key is PREFIX+KEY. Everything else about it carries `{PREFIX+KEY}`, which Redis Cluster
hashes to the stream's own slot, so that a script may touch both. A routing key holds no brace, so none of
these names can be taken for a stream's.
"""

from __future__ import annotations

import os
import secrets
import socket

from abe_router.messages.pattern import is_key, is_wild


class Names:
    """The names under one prefix; raise ValueError when the prefix holds a brace."""

    def __init__(self, prefix: str) -> None:
        if "{" in prefix or "}" in prefix:
            raise ValueError("a prefix may hold no brace")
        self.prefix = prefix
        #: Set of the keys that have a stream.
        self.keys = f"abe-router:{{{prefix}}}:keys"
        #: Stream that gets an entry when `keys` grows, for those who wait on it.
        self.news = f"abe-router:{{{prefix}}}:news"
        #: Hash of the subscriptions to where they start, in milliseconds since the epoch.
        self.subscriptions = f"abe-router:{{{prefix}}}:subscriptions"
        #: Set of the subscriptions that were dropped and not made again.
        self.dropped = f"abe-router:{{{prefix}}}:dropped"
        #: Changes with every new subscription.
        self.entered = f"abe-router:{{{prefix}}}:entered"
        #: Hash of what callers of `trim` want kept, as `MILLISECONDS PATTERN`, to until when that counts.
        self.retention = f"abe-router:{{{prefix}}}:retention"
        #: Hash of the workers to until when their word is good, in milliseconds, and the word.
        self.workers = f"abe-router:{{{prefix}}}:workers"

    def rate(self, name: str) -> str:
        """State of a rate that all processes keep together."""
        return f"abe-router:{{{self.prefix}}}:rate:{name}"

    def stream(self, key: str) -> str:
        """Return the name of the stream of a key."""
        return self.prefix + key

    def key(self, stream: str) -> str | None:
        """Return the key whose stream has that name, None if there is none."""
        key = stream.removeprefix(self.prefix)
        return key if stream.startswith(self.prefix) and is_key(key) else None

    def delayed(self, key: str, group: str) -> str:
        """Sorted set of the entries that wait for another attempt, by when, in milliseconds."""
        return f"abe-router:{{{self.prefix}{key}}}:delayed:{group}"

    def failures(self, key: str, group: str) -> str:
        """Hash of the entries that failed to how often and since when, as `COUNT:MILLISECONDS`."""
        return f"abe-router:{{{self.prefix}{key}}}:failures:{group}"

    def ids(self, key: str) -> str:
        """Sorted set of the ids by which messages are known again, by until when, in milliseconds."""
        return f"abe-router:{{{self.prefix}{key}}}:ids"

    def place(self, key: str, group: str) -> str:
        """Which consumer has, or had, the stream to itself, as `UNTIL CONSUMER`, in milliseconds."""
        return f"abe-router:{{{self.prefix}{key}}}:place:{group}"

    def left(self, key: str, group: str) -> str:
        """Stream that gets an entry when the place becomes free, for those who wait for it."""
        return f"abe-router:{{{self.prefix}{key}}}:left:{group}"

    def dead(self, key: str, group: str) -> str:
        """Stream of the dead letters."""
        return f"abe-router:{{{self.prefix}{key}}}:dead:{group}"


def group_name(pattern: str, group: str) -> str:
    """Return the consumer group's name: a pattern's group is not that of the key's own subscription."""
    return f"{pattern}/{group}" if is_wild(pattern) else group


def subscription_name(pattern: str, group: str) -> str:
    """Return the name of a subscription, which reads one way only, for a group holds no slash."""
    return f"{pattern}/{group}"


def consumer_name(lease: float) -> str:
    """Return a name that no other handle, process or host has had, with the lease in seconds.

    The lease is part of it so that whoever looks for what a dead consumer held knows how long to wait.
    """
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}/lease={round(lease * 1000)}"


def begin_at(millis: int) -> str:
    """Return where a group has to begin whose first message is of that time or later.

    It is the position right before, for a group gets what comes after its position.
    """
    return f"{millis - 1}-{2**64 - 1}" if millis > 0 else "0-0"
