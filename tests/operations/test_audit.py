"""`record_act` and `acts`: what operators did, in the backend."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from pathlib import Path

import msgspec
import pytest

from abe_router.backend import Features
from abe_router.backends import make_backend
from abe_router.backends.memory import MemoryBackend
from abe_router.errors import BackendUnavailable
from abe_router.operations import audit
from abe_router.operations.audit import AUDIT, Act, Author, acts, local_author, record_act

ADA = Author("ada@host", "command line")


async def test_acts_are_numbered_and_the_newest_comes_first() -> None:
    async with MemoryBackend() as backend:
        await record_act(backend, ADA, "pause", "a/first", why="gateway down", result="for 1h")
        await record_act(backend, Author("ci", "http 10.0.0.3"), "resume", "a/first")
        newest, oldest = await acts(backend)
        assert await acts(backend, limit=1) == [newest]
    assert (newest.number, newest.author, newest.source) == (2, "ci", "http 10.0.0.3")
    assert oldest == Act(
        1, oldest.at, "ada@host", "command line", "pause", "a/first", "gateway down", "for 1h"
    )


async def test_concurrent_processes_record_every_act_under_a_number_of_its_own(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"
    backends = [make_backend(url) for _ in range(4)]
    try:
        await asyncio.gather(
            *(record_act(each, ADA, "pause", f"a/{n}") for n, each in enumerate(backends * 3))
        )
        found = await acts(backends[0])
    finally:
        for each in backends:
            await each.close()
    assert [act.number for act in found] == list(range(12, 0, -1))
    assert {act.target for act in found} == {f"a/{n}" for n in range(12)}


async def test_only_the_newest_acts_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "KEPT", 3)
    async with MemoryBackend() as backend:
        for number in range(1, 6):
            await record_act(backend, ADA, "pause", f"a/{number}")
        assert list(await backend.entries(AUDIT)) == ["3", "4", "5"]


async def test_an_act_has_no_credentials_and_no_text_without_end() -> None:
    async with MemoryBackend() as backend:
        await record_act(backend, ADA, "drop", "a/\udc80", why="see redis://me:secret@host/0 " + "x" * 10**6)
        (act,) = await acts(backend)
    assert act.target == "a/\\udc80"
    assert act.why.startswith("see redis://***@host/0 x")
    assert len(act.why) == audit.LONGEST


async def test_an_unreadable_act_is_skipped_and_its_number_is_not_used_again() -> None:
    async with MemoryBackend() as backend:
        await backend.put(AUDIT, "7", b"of another version")
        await record_act(backend, ADA, "pause", "a/first")
        assert [act.number for act in await acts(backend)] == [8]


async def test_an_error_of_the_backend_is_logged_and_not_raised(caplog: pytest.LogCaptureFixture) -> None:
    class Away(MemoryBackend):
        async def entries(self, bucket: str) -> dict[str, object]:
            raise BackendUnavailable("away")

    with caplog.at_level(logging.WARNING):
        await record_act(Away(), ADA, "pause", "a/first")
    assert "cannot record that ada@host did `pause` to a/first: away" in caplog.text


async def test_backend_without_key_value_store_has_no_acts() -> None:
    class Plain(MemoryBackend):
        features = Features(key_value=False)

    async with Plain() as backend:
        await record_act(backend, ADA, "pause", "a/first")
        assert await acts(backend) == ()


def test_local_author_is_the_user_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_author().name.endswith(f"@{socket.gethostname()}")
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setenv("SUDO_USER", "ada")
    assert local_author() == Author(f"ada@{socket.gethostname()}", "command line")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    assert local_author().name.startswith("uid 4000000000@")


def test_an_act_is_plain_json() -> None:
    act = Act(1, 2.0, "ada@host", "command line", "pause", "a/first")
    assert msgspec.json.decode(msgspec.json.encode(act), type=Act) == act
