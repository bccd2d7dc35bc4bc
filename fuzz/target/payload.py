"""Payloads: what is accepted comes back as it was, and the verdict equals that of another JSON parser."""

from __future__ import annotations

import json
import math
from random import Random
from typing import Any

import msgspec

from abe_router.errors import PayloadMalformed, PayloadUnencodable
from abe_router.messages.message import MAX_BYTES, MAX_DEPTH, decode, encode, encode_for_check
from fuzz.corpus import Corpus
from fuzz.grammar import json_value
from fuzz.mutate import mutate_bytes
from fuzz.target.target import Input, Target, demand

_PIECES = (b'"', b'\\"', b"\\", b"[", b"{", b"}", b"]", b'{"a":', b"NaN", b"-Infinity", b"1e400", b"\\ud800")


class PayloadTarget(Target):
    """Decodes bytes as a consumer does, and encodes values as a publisher does."""

    name = "payload"
    about = "JSON is read exactly or refused, as Python's parser says, in linear time"
    short = 1500

    def make(self, random: Random, corpus: Corpus) -> Input:
        """Return bytes: JSON, damaged JSON, or many repetitions of a few pieces."""
        choice = random.random()
        if choice < 0.1:
            times = random.choice((10, 129, 300, 20_000))
            pieces = b"".join(random.choice(_PIECES) for _ in range(random.choice((1, 2, 3))))
            return random.choice(_PIECES) * random.choice((0, 1, 200)) + pieces * times
        value = random.choice(corpus.payloads) if choice < 0.3 else json_value(random)
        body = json.dumps(value, ensure_ascii=random.random() < 0.5).encode(errors="surrogatepass")
        return body if random.random() < 0.4 else mutate_bytes(random, body, [body])

    def check(self, given: Input) -> None:
        """Compare with Python's parser, and what is accepted with what is encoded again."""
        try:
            value = decode(given)
        except PayloadMalformed as error:
            demand(len(str(error)) < 300, "the reason is as long as the payload")
            reason = str(error)
            if "over the limit" in reason or "nested deeper" in reason or "is too large" in reason:
                return
            expected = _parse(given)
            demand(expected is _INVALID, f"refused ({error}), and it is JSON: {given[:200]!r}")
            return
        demand(len(given) <= MAX_BYTES and _depth(value) <= MAX_DEPTH, "beyond the limits")
        expected = _parse(given)
        demand(expected is not _INVALID, "accepted, and it is not JSON")
        demand(_same(value, expected), f"read as {value!r}, Python reads {expected!r}")
        try:
            body = encode(value)
        except PayloadUnencodable as error:
            demand("over the limit" in str(error), f"what was read cannot be written: {error}")
            return
        demand(encode_for_check(value) == (body, value), "the check reads another value")
        demand(_same(encode_for_check(value, decoded=True)[1], value), "decoded, it is another value")
        demand(_same(decode(body), value), "written and read again it is another value")


class _Invalid:
    """Stands for a text that is not JSON."""


_INVALID = _Invalid()


def _parse(body: bytes) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        value = json.loads(body.decode(), parse_constant=refuse)
    except (ValueError, RecursionError):
        return _INVALID
    if body[:1] == b"\xef":  # a byte order mark is not JSON
        return _INVALID
    return _INVALID if _has_surrogate_or_infinity(value) else value


def _has_surrogate_or_infinity(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_surrogate_or_infinity(part) for item in value.items() for part in item)
    if isinstance(value, list):
        return any(map(_has_surrogate_or_infinity, value))
    if isinstance(value, str):
        return any("\ud800" <= c <= "\udfff" for c in value)
    return isinstance(value, float) and not math.isfinite(value)


def _depth(value: Any) -> int:
    deepest, stack = 0, [(value, 0)]
    while stack:
        item, depth = stack.pop()
        deepest = max(deepest, depth)
        if isinstance(item, dict | list):
            stack += [(part, depth + 1) for part in (item.values() if isinstance(item, dict) else item)]
            deepest = max(deepest, depth + 1)
    return deepest


def _same(left: Any, right: Any) -> bool:
    """Return whether two values are equal in kind too: 1, 1.0 and true are three values."""
    return msgspec.msgpack.encode(_tagged(left)) == msgspec.msgpack.encode(_tagged(right))


def _tagged(value: Any) -> Any:
    if isinstance(value, dict):
        return [[name, _tagged(part)] for name, part in value.items()]
    if isinstance(value, list):
        return [len(value), *map(_tagged, value)]
    return f"{type(value).__name__} {value!r}" if isinstance(value, int | float) else value
