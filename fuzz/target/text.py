"""Short texts of users and of other programs: durations, rates, pointers, URLs, headers, control messages."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

import msgspec

from abe_router.backends import make_backend
from abe_router.backends.redis.entry import pack_headers, read_count, read_message, read_time, unpack_headers
from abe_router.errors import BackendError
from abe_router.messages.pointer import find, is_pointer, join, parse
from abe_router.process.channel import Outdated, Running, decode_message, encode_message
from abe_router.runtime.heartbeat import decode_report
from abe_router.text import (
    did_you_mean,
    format_duration,
    format_rate,
    mask_credentials,
    parse_duration,
    parse_rate,
    printable,
    redact_url,
    suggest_duration,
    suggest_rate,
)
from fuzz.corpus import Corpus
from fuzz.mutate import ODD_BYTES, mutate_bytes
from fuzz.target.target import Input, Target, demand

_PASSWORD = "hunter2-4711"  # noqa: S105
_SEEDS = (
    *(b"200ms", b"1.5s", b"90s", b"5m", b"7d", b"0s", b"366d", b"100/s", b"90/m", b"0.5/h", b"1000000/s"),
    *(b"/a/0/~0~1", b"/", b"orders.created", b"redis://user:hunter2-4711@host:6379/0?socket_timeout=1"),
    *(b"rediss://:hunter2-4711@[::1]:1/2?ssl_cert_reqs=none", b"unix:///tmp/r.sock?db=1", b"sqlite:///q.db"),
    *(
        b"memory://",
        b"sqlite:////a/b",
        b'{"a":"b","abe-hops":"3"}',
        b'{"type":"Running","code":[],"drain":1}',
    ),
    *(b'{"host":"h","pid":1,"started_at":1.5,"revision":"x"}', b"1764000000.5", b"nan", b"1700000000000-0"),
)


class TextTarget(Target):
    """Reads a text as everything that reads text from outside."""

    name = "text"
    about = "durations, rates, pointers, URLs, headers, control messages: read, or refused as documented"
    short = 1000

    def make(self, random: Random, corpus: Corpus) -> Input:  # noqa: ARG002
        """Return which reader gets the text, and the text."""
        text = mutate_bytes(random, random.choice(_SEEDS), _SEEDS)
        if random.random() < 0.02:
            text = random.choice((*ODD_BYTES, *_SEEDS)) * random.choice((100, 20_000))
        return [random.choice(sorted(_READERS)), text]

    def check(self, given: Input) -> None:
        """Read the text."""
        name, data = given
        if name in _READERS:
            _READERS[name](data)


def _duration(data: bytes) -> None:
    text = data.decode(errors="surrogateescape")
    try:
        seconds = parse_duration(text)
    except ValueError:
        if meant := suggest_duration(text):
            _quietly(lambda: parse_duration(meant))
        return
    demand(math.isfinite(seconds) and seconds >= 0, f"{text!r} is {seconds} s")
    again = parse_duration(format_duration(seconds)) if seconds >= 1e-3 or seconds == 0 else seconds
    demand(math.isclose(again, seconds, rel_tol=1e-3), f"{seconds} s is shown as {format_duration(seconds)}")


def _rate(data: bytes) -> None:
    text = data.decode(errors="surrogateescape")
    try:
        rate = parse_rate(text)
    except ValueError:
        if meant := suggest_rate(text):
            _quietly(lambda: parse_rate(meant))
        return
    shown = format_rate(rate)
    demand(math.isclose(parse_rate(shown), rate, rel_tol=1e-4), f"{rate}/s is shown as {shown}")


def _quietly(call: Callable[[], object]) -> None:
    """Call a function that may raise ValueError: a suggestion may be out of bounds."""
    try:
        call()
    except ValueError:
        return


def _pointer(data: bytes) -> None:
    text = data.decode(errors="surrogateescape")
    if is_pointer(text):
        demand(join(parse(text)) == text, f"{text!r} is parsed as {parse(text)}")
        try:
            find({"a": [{"~/": 1}], "": {"": 2}}, text)
        except LookupError:
            return


def _url(data: bytes) -> None:
    text = data.decode(errors="surrogateescape")
    shown = [
        mask_credentials(text),
        redact_url(text),
        printable(text),
        did_you_mean(text, ["redis", "sqlite"]),
    ]
    try:
        backend = make_backend(text)
    except BackendError as error:
        shown[2:] = [str(error)]
    else:
        shown[2:] = [backend.url]
    if _PASSWORD in text and "@" in text and "://" in text and text.index("://") < text.index(_PASSWORD):
        user, _, rest = text.partition("://")[2].rpartition("@")
        if _PASSWORD in user and _PASSWORD not in rest and not any(c.isspace() for c in user):
            demand(_PASSWORD not in shown[2], f"a message shows the password: {shown[2]!r}")


def _headers(data: bytes) -> None:
    headers = unpack_headers(data)
    demand(all(isinstance(part, str) for item in headers.items() for part in item), "a header is no text")
    again = unpack_headers(pack_headers(headers))
    demand(again == headers, f"headers come back as {again}, they were {headers}")


def _entry(data: bytes) -> None:
    read_count(data)
    demand(math.isfinite(read_time(data)), f"a time of {read_time(data)}")
    for fields in (
        [b"data", data],
        [data, data],
        [b"data", b"1", b"at", data, b"id", data],
        [b"__data__", data],
    ):
        message, _ = read_message(b"1700000000000-0", fields, "a")
        demand(math.isfinite(message.published_at), f"published at {message.published_at}")
        msgspec.json.encode(message)


def _channel(data: bytes) -> None:
    path = Path(data.replace(b"\x00", b"").decode(errors="surrogateescape"))
    for message in (Running(frozenset([path]), 1.5), Outdated(str(path)[:50], path)):
        again = decode_message(encode_message(message))
        demand(again == message, f"a control message comes back as {again}")


def _report(data: bytes) -> None:
    decode_report(data)
    depth = min(3000, 3 * len(data))
    deep = b'{"host":"h","pid":1,"started_at":1,"revision":"r","x":' + b'{"a":' * depth
    decode_report(deep + (data if data.isdigit() else b"1") + b"}" * depth + b"}")


_READERS: Mapping[str, Callable[[bytes], None]] = {
    "channel": _channel,
    "duration": _duration,
    "entry": _entry,
    "headers": _headers,
    "pointer": _pointer,
    "rate": _rate,
    "report": _report,
    "url": _url,
}
