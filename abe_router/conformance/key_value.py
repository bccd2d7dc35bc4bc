"""A small store of named values, which change only as their writers expect."""

from __future__ import annotations

import asyncio
from unittest import SkipTest

from abe_router.backend import Backend
from abe_router.conformance.clients import count, run_client
from abe_router.conformance.harness import SOON, Harness, steps
from abe_router.conformance.suite import Suite, check

#: Every byte there is, and then some that end a text elsewhere.
BINARY = bytes(range(256)) + b"\r\n\x00"
#: Names that a provider may take apart, cut short, or take for others.
ODD_NAMES = (
    *(
        "a",
        "A",
        "a ",
        " a",
        "a:b",
        "a/b",
        "a.b",
        "a\nb",
        "a\0b",
        "a\0",
        "*",
        "%",
        "{a}",
        "a{b}",
        "'; --",
        "-1",
        "0",
    ),
    *("\u00e9", "e\u0301", "\U0001f4e6", "0" * 500, "revision", "workers"),
)


class KeyValueTests(Suite):
    """Workers, edits and overrides are kept here: of several writers one wins, and all see the same."""

    @check("key_value")
    async def test_put_value_is_read_by_every_backend(self, harness: Harness) -> None:
        """A bug loses what a worker reports, where an operator reads it."""
        one, two = harness.backend, harness.another()
        for value in (b"first", BINARY, b"", b"x" * 300_000):
            revision = await one.put("workers", "host:1", value)
            assert revision > 0
            for backend in (one, two):
                entry = await backend.get("workers", "host:1")
                assert entry is not None
                assert (entry.value, entry.revision) == (value, revision)
        other = await two.put("workers", "host:2", b"second")
        entries = await one.entries("workers")
        assert {name: (each.value, each.revision) for name, each in entries.items()} == {
            "host:1": (b"x" * 300_000, revision),
            "host:2": (b"second", other),
        }

    @check("key_value")
    async def test_absent_entry_is_none(self, harness: Harness) -> None:
        """A bug refuses the first writer although no entry exists."""
        backend = harness.backend
        assert await backend.get("never", "written") is None
        assert dict(await backend.entries("never")) == {}
        assert not await backend.delete("never", "written")
        assert not await backend.delete("never", "written", expected=1)
        assert not await backend.put("never", "written", b"x", expected=1)
        assert await backend.get("never", "written") is None

    @check("key_value")
    async def test_deleted_entry_is_gone(self, harness: Harness) -> None:
        """A bug shows a worker that has left until its entry expires."""
        one, two = harness.backend, harness.another()
        for name in ("a", "b", "c"):
            await one.put("bucket", name, b"x")
        assert await two.delete("bucket", "b")
        assert not await one.delete("bucket", "b")
        assert await one.get("bucket", "b") is None
        assert set(await one.entries("bucket")) == {"a", "c"}

    @check("key_value")
    async def test_put_compares_the_revision_it_expects(self, harness: Harness) -> None:
        """A bug loses what another writer put since this one read."""
        one, two = harness.backend, harness.another()
        first = await one.put("edits", "state", b"checking", expected=0)
        second = await two.put("edits", "state", b"accepted", expected=first)
        assert 0 < first < second
        for stale in (first, 0, second + 1, second + 1_000):
            assert await one.put("edits", "state", b"rejected", expected=stale) == 0
        entry = await one.get("edits", "state")
        assert entry is not None
        assert (entry.value, entry.revision) == (b"accepted", second)
        assert await one.put("edits", "state", b"proven", expected=second) > second

    @check("key_value")
    async def test_delete_compares_the_revision_it_expects(self, harness: Harness) -> None:
        """A bug loses an override that one process renewed while another one ended it."""
        backend = harness.backend
        first = await backend.put("overrides", "route", b"pause")
        second = await backend.put("overrides", "route", b"pause longer")
        for stale in (first, 0, second + 1):
            assert not await backend.delete("overrides", "route", expected=stale)
        assert await backend.get("overrides", "route") is not None
        assert await backend.delete("overrides", "route", expected=second)
        assert await backend.get("overrides", "route") is None

    @check("key_value")
    async def test_expecting_no_entry_creates_one_and_replaces_none(self, harness: Harness) -> None:
        """A bug loses the edit that came first, replaced by the one that came at the same time."""
        backend = harness.backend
        assert await backend.put("edits", "1", b"mine", expected=0)
        assert not await backend.put("edits", "1", b"theirs", expected=0)
        assert await backend.delete("edits", "1")
        assert await backend.put("edits", "1", b"again", expected=0)
        await backend.put("edits", "2", b"short", ttl=0.05)
        await asyncio.sleep(0.15)
        assert await backend.put("edits", "2", b"again", expected=0)
        assert {name: each.value for name, each in (await backend.entries("edits")).items()} == {
            "1": b"again",
            "2": b"again",
        }

    @check("key_value")
    async def test_one_of_several_writers_wins(self, harness: Harness) -> None:
        """A bug lets two workers believe that they made the same change of state."""
        backends = [harness.backend, harness.another(), harness.another()]
        for expected in (0, None):
            for number in range(15):
                name = f"edit {number}"
                entry = await harness.backend.get("edits", name) if expected is None else None
                revision = entry.revision if entry else 0
                writers = [(backends[n % 3], b"%d" % n) for n in range(9)]
                revisions = await asyncio.gather(
                    *(backend.put("edits", name, value, expected=revision) for backend, value in writers)
                )
                assert sum(map(bool, revisions)) == 1
                entry = await harness.backend.get("edits", name)
                assert entry is not None
                assert revisions[int(entry.value)] == entry.revision

    @check("key_value")
    async def test_handles_lose_no_update(self, harness: Harness) -> None:
        """A bug loses an update that compares and keeps in two steps."""
        backends = [harness.backend, harness.another(), harness.another()]
        await asyncio.gather(*(count(backend, "replays", "done", 20) for backend in backends))
        await _assert_counted(harness.backend, 60)

    @check("key_value", "processes")
    async def test_processes_lose_no_update(self, harness: Harness) -> None:
        """A bug loses an update that is one step in its process alone."""
        if not self.url:
            raise SkipTest("other processes need a URL")
        arguments = (self.url, harness.prefix, "replays", "done", "50")
        again = await asyncio.gather(*(run_client("count", *arguments) for _ in range(2)))
        assert all(len(words) == 1 for words in again)
        await _assert_counted(harness.backend, 100)

    @check("key_value")
    async def test_revision_rises_and_is_never_given_twice(self, harness: Harness) -> None:
        """A bug loses what was put since, by a writer that expects the revision of an entry long gone."""
        backend = harness.backend
        revisions = [await backend.put("bucket", name, b"x") for name in ("a", "b", "a")]
        assert await backend.delete("bucket", "a")
        revisions.append(await backend.put("bucket", "a", b"x"))
        assert await backend.delete("bucket", "a")
        assert await backend.delete("bucket", "b")  # the bucket is empty
        backend = await harness.reopen()
        revisions.append(await backend.put("bucket", "a", b"x", ttl=0.05))
        await asyncio.sleep(0.15)
        assert not await backend.put("bucket", "a", b"stale", expected=revisions[-1])
        revisions.append(await backend.put("bucket", "a", b"x", expected=0, ttl=0.05))
        await asyncio.sleep(0.15)
        backend = await harness.reopen()
        revisions.append(await harness.another().put("bucket", "b", b"x"))
        assert min(revisions) > 0
        assert revisions == sorted(set(revisions))

    @check("key_value")
    async def test_entry_expires_after_its_ttl_unless_it_is_put_again(self, harness: Harness) -> None:
        """A bug shows a dead worker as alive, or a living one as dead."""
        one, two = harness.backend, harness.another()
        expired = await one.put("workers", "dead", b"x", ttl=1.0)
        await one.put("workers", "alive", b"x", ttl=1.0)
        await one.put("workers", "for good", b"x", ttl=1.0)
        await one.put("workers", "no ttl", b"x")
        assert set(await two.entries("workers")) == {"dead", "alive", "for good", "no ttl"}
        await two.put("workers", "alive", b"y", ttl=60.0)
        await two.put("workers", "for good", b"y")
        await asyncio.sleep(1.2)
        for backend in (one, two):
            assert set(await backend.entries("workers")) == {"alive", "for good", "no ttl"}
            assert await backend.get("workers", "dead") is None
            assert not await backend.delete("workers", "dead")
            assert not await backend.put("workers", "dead", b"z", expected=expired)
        alive = await one.get("workers", "alive")
        assert alive is not None
        assert alive.value == b"y"

    @check("key_value")
    async def test_put_that_is_refused_changes_no_ttl(self, harness: Harness) -> None:
        """A bug lets a refused writer move the expiry of an entry."""
        backend = harness.backend
        revision = await backend.put("overrides", "route", b"x")
        assert not await backend.put("overrides", "route", b"y", expected=revision + 1, ttl=0.05)
        await asyncio.sleep(0.15)
        entry = await backend.get("overrides", "route")
        assert entry is not None
        assert (entry.value, entry.revision) == (b"x", revision)

    @check("key_value")
    async def test_buckets_are_separate(self, harness: Harness) -> None:
        """A bug loses an entry whose name another bucket has as well."""
        backend = harness.backend
        names = [("a", "b:c"), ("a:b", "c"), ("a/b", "c"), ("a", "b/c"), ("A", "b"), ("a", "b")]
        for number, (bucket, name) in enumerate(names):
            assert await backend.put(bucket, name, b"%d" % number, expected=0)
        for number, (bucket, name) in enumerate(names):
            entry = await backend.get(bucket, name)
            assert entry is not None
            assert entry.value == b"%d" % number
        assert set(await backend.entries("a")) == {"b:c", "b/c", "b"}
        assert await backend.delete("a", "b")
        assert set(await backend.entries("A")) == {"b"}

    @check("key_value")
    async def test_prefixes_are_separate(self, harness: Harness) -> None:
        """A bug loses the entries of another program on the same server."""
        other = Harness(self.make_backend, self.pause)
        try:
            assert await harness.backend.put("workers", "host:1", b"here")
            assert await other.backend.get("workers", "host:1") is None
            assert dict(await other.backend.entries("workers")) == {}
            assert await other.backend.put("workers", "host:1", b"there", expected=0)
            assert await other.backend.delete("workers", "host:1")
            entry = await harness.backend.get("workers", "host:1")
            assert entry is not None
            assert entry.value == b"here"
        finally:
            await other.close()

    @check("key_value")
    async def test_names_may_be_any_text(self, harness: Harness) -> None:
        """A bug loses an entry whose name is cut short, folded, or taken for a pattern."""
        backend = harness.backend
        for number, name in enumerate(ODD_NAMES):
            assert await backend.put("bucket", name, b"%d" % number, expected=0), repr(name)
            assert await backend.put(name, "name", b"%d" % number, expected=0), repr(name)
        expected = {name: b"%d" % number for number, name in enumerate(ODD_NAMES)}
        entries = await harness.another().entries("bucket")
        assert {name: entry.value for name, entry in entries.items()} == expected
        for name, value in expected.items():
            assert [each.value for each in (await backend.entries(name)).values()] == [value], repr(name)
            assert await backend.delete("bucket", name), repr(name)
        assert dict(await backend.entries("bucket")) == {}

    @check("key_value")
    async def test_entries_survive_reopening(self, harness: Harness) -> None:
        """A bug loses edits and overrides at each restart."""
        revision = await harness.backend.put("edits", "1", BINARY)
        await harness.backend.put("edits", "2", b"x", ttl=60.0)
        backend = await harness.reopen()
        entries = await backend.entries("edits")
        assert {name: entry.value for name, entry in entries.items()} == {"1": BINARY, "2": b"x"}
        assert await backend.put("edits", "1", b"y", expected=revision) > revision

    @check("key_value")
    async def test_cancelled_put_keeps_the_old_value_or_the_new_one(self, harness: Harness) -> None:
        """A bug loses an entry that a cancelled call left half written, or that nothing can change."""
        backend = harness.backend
        for moment in range(30):
            name = f"entry {moment}"
            first = await backend.put("bucket", name, b"old")
            putting = asyncio.create_task(backend.put("bucket", name, b"new", expected=first))
            await steps(moment)
            putting.cancel()
            await asyncio.wait({putting})
            entry = await backend.get("bucket", name)
            assert entry is not None
            assert (entry.value == b"old") == (entry.revision == first)
            if not putting.cancelled():
                assert entry.revision == putting.result()
        async with asyncio.timeout(SOON):
            await count(backend, "replays", "done", 1)  # and the store goes on


async def _assert_counted(backend: Backend, total: int) -> None:
    entry = await backend.get("replays", "done")
    assert entry is not None
    assert int(entry.value) == total, f"{total - int(entry.value)} of {total} updates were lost"
