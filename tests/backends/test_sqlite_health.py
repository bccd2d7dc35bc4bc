"""What `doctor` finds about a SQLite file, each in a file that is really in that state."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from abe_router.backend import HealthResult
from abe_router.backends.sqlite import SQLiteBackend, health
from abe_router.backends.sqlite.file import file_system, is_network
from abe_router.backends.sqlite.health import FileHealth, check_version

KEY, GROUP = "orders.created", "billing"


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """Return a file with one message for `orders.created/billing`, which nobody has open."""
    path = tmp_path / "queue.db"
    async with SQLiteBackend(path) as backend:
        await backend.subscribe(KEY, GROUP)
        await backend.publish(KEY, 1)
    return path


def examined(path, *, served=None, synchronous="full", **rest):
    found = FileHealth(path, "", synchronous, served, **rest).check()
    assert all(isinstance(finding, HealthResult) for finding in found)
    return {finding.code: finding for finding in found}


def weak(path, **rest):
    return {code: f for code, f in examined(path, **rest).items() if f.weakens}


def test_a_sound_file_has_nothing_that_weakens_the_promise(path):
    found = examined(path, served={(KEY, GROUP)})
    assert {code: str(f.severity) for code, f in found.items()} == {
        "D201": "ok",
        "D202": found["D202"].severity,
        "D204": "ok",
        "D208": "ok",
    }
    assert not any(f.weakens for f in found.values())


def test_looking_changes_nothing_and_makes_no_file(path, tmp_path):
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.iterdir()}
    assert not weak(path)
    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.iterdir()} == before
    assert examined(tmp_path / "other.db")["D201"].severity == "info"
    assert not (tmp_path / "other.db").exists()


async def test_a_file_that_is_in_use_is_read_beside_its_users(tmp_path):
    async with SQLiteBackend(tmp_path / "queue.db") as backend:
        await backend.subscribe(KEY, GROUP)
        await backend.publish(KEY, 1)
        found = {f.code: f for f in await backend.check_health({(KEY, "other")})}
        assert "`orders.created/billing` holds 1 message" in found["D110"].message
        await backend.publish(KEY, 2)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.mkdir(), "is not a file"),
        (lambda path: path.write_text("no database, certainly not one\n" * 40), "cannot be read"),
        (
            lambda path: sqlite3.connect(path).execute("CREATE TABLE t (a)").connection.close(),
            "another program",
        ),
    ],
)
def test_what_the_router_could_not_open_is_an_error(tmp_path, make, said):
    make(tmp_path / "queue.db")
    finding = weak(tmp_path / "queue.db")["D201"]
    assert finding.severity == "error"
    assert said in finding.message


def test_a_folder_that_is_not_there_is_an_error_with_the_command_that_makes_it(tmp_path):
    assert weak(tmp_path / "none" / "queue.db")["D201"].hint == f"mkdir -p {tmp_path}/none"


@pytest.mark.parametrize(
    ("number", "severity"),
    [
        ((3, 6, 23), "ok"),
        ((3, 46, 1), "info"),
        ((3, 44, 5), "info"),
        ((3, 44, 6), "ok"),
        ((3, 50, 7), "ok"),
        ((3, 51, 2), "info"),
        ((3, 51, 3), "ok"),
        ((3, 52, 0), "warning"),
        ((3, 53, 0), "ok"),
    ],
)
def test_versions_that_can_damage_a_file_are_known(number, severity):
    (finding,) = check_version(number)
    assert (finding.code, str(finding.severity)) == ("D202", severity)


@pytest.mark.parametrize(
    ("kind", "severity"),
    [("nfs4", "error"), ("cifs", "error"), ("9p", "error"), ("fuse.sshfs", "error"), ("tmpfs", "warning")],
)
def test_a_file_system_that_cannot_keep_it_is_told(path, tmp_path, kind, severity):
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"/dev/vda / ext4 rw 0 0\nfar:/q {str(tmp_path).replace(' ', chr(92) + '040')} {kind} rw 0 0\n"
    )
    finding = weak(path, mounts=mounts)["D203"]
    assert str(finding.severity) == severity
    assert kind in finding.message


def test_the_mount_nearest_to_the_path_counts_and_the_last_one_there(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text("a / overlay rw\nb /srv nfs rw\nc /srv/q\\040x ext4 rw\nd /srv nfs4 rw\nodd\n")
    places = {"/": "overlay", "/srv": "nfs4", "/srv/q x/y": "ext4", "/srvx": "overlay"}
    assert {place: file_system(Path(place), mounts) for place in places} == places
    assert file_system(tmp_path, tmp_path / "none") == ""
    assert not any(map(is_network, ("overlay", "ext4", "xfs", "btrfs", "tmpfs", "fuse.fuse-overlayfs", "")))


def test_commits_that_are_not_synced_are_told(path):
    assert "synchronous=normal" in weak(path, synchronous="normal")["D204"].message


def test_another_journal_is_told(path):
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    assert set(weak(path)) == {"D205"}


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Yield a disk of eight megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("nothing may be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def test_a_disk_that_is_nearly_full_is_told(small):
    async with SQLiteBackend(small / "queue.db") as backend:
        found = {finding.code: finding for finding in await backend.check_health()}
    assert " MiB are left on the disk" in found["D206"].message
    assert found["D203"].severity == "warning"


@pytest.mark.parametrize(("mode", "severity"), [(0o602, "error"), (0o606, "error"), (0o604, "warning")])
def test_a_file_that_others_may_use_is_told_with_the_command_that_mends_it(path, mode, severity):
    path.chmod(mode)
    finding = weak(path)["D207"]
    assert (str(finding.severity), finding.hint) == (severity, f"chmod 600 {path}")


def test_a_folder_that_others_may_write_is_told_unless_it_is_sticky(path):
    path.parent.chmod(0o777)
    assert weak(path)["D207"].hint == f"chmod o-w {path.parent}"
    path.parent.chmod(0o1777)
    assert not weak(path)


async def test_damage_is_told(tmp_path):
    path = tmp_path / "queue.db"
    async with SQLiteBackend(path) as backend:
        await backend.subscribe(KEY, GROUP)
        for n in range(50):
            await backend.publish(KEY, "x" * 3000 + str(n))
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(os.urandom(20_000))
    damage = weak(path)["D208"]
    assert damage.severity == "error"
    assert "damaged" in damage.message


async def test_the_search_for_damage_ends_in_time(path, monkeypatch):
    monkeypatch.setattr(health, "_SEARCH_SECONDS", -1.0)
    monkeypatch.setattr(health, "_SEARCH_STEPS", 1)
    assert examined(path)["D208"].severity == "info"


async def test_a_log_that_a_long_reader_keeps_is_told(path, monkeypatch):
    monkeypatch.setattr(health, "_LARGE_WAL", 100_000)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM messages").fetchone()
    async with SQLiteBackend(path) as backend:
        await backend.publish(KEY, "x" * 200_000)
        assert "D209" in {finding.code for finding in await backend.check_health()}
    reader.close()


def test_what_left_the_file_and_holds_messages_is_told(path):
    assert not weak(path, served={(KEY, GROUP)})
    assert not weak(path)  # nobody knows who is served
    finding = weak(path, served={(KEY, "audit")})["D110"]
    assert finding.hint.endswith("`abe-router drop orders.created/billing`")


async def test_messages_under_a_key_that_nobody_reads_are_told(path):
    async with SQLiteBackend(path) as backend:
        await backend.publish("orders.lost", 1)
        await backend.publish("orders.lost", 2)
    finding = examined(path)["D111"]
    assert finding.severity == "info"
    assert "2 messages wait under keys that no subscription matches: `orders.lost` 2" in finding.message
