"""The key-value store of a backend: small named values in buckets, for what workers and operators share.

Workers, edits, overrides and replays are buckets. The terms are those of the NATS key-value store.
"""

from __future__ import annotations

import msgspec


class Entry(msgspec.Struct, frozen=True):
    """A value of a bucket.

    `revision` is positive. A later change in the bucket has a greater one, and none is ever given twice, not
    even after a delete or an expiry.
    """

    value: bytes
    revision: int
