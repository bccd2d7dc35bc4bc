"""The health checks of a SQLite file, each on a file that really is in that state."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from abe_router.backend import HealthResult
from abe_router.backends.sqlite import SQLiteBackend, health
from abe_router.backends.sqlite.health import FileHealth, check_version
from abe_router.backends.sqlite.mount import file_system, is_network

KEY, GROUP = "orders.created", "billing"


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """Return a file with one message for `orders.created/billing`, which no process has open."""
    path = tmp_path / "queue.db"
    async with SQLiteBackend(path) as backend:
        await backend.subscribe(KEY, GROUP)
        await backend.publish(KEY, 1)
    return path


def checked(path, *, served=None, synchronous="full", **rest):
    found = FileHealth(path, "", synchronous, served, **rest).check()
    assert all(isinstance(finding, HealthResult) for finding in found)
    return {finding.code: finding for finding in found}


def weak(path, **rest):
    return {code: f for code, f in checked(path, **rest).items() if f.weakens}


def test_sound_file_has_no_weakness(path):
    found = checked(path, served={(KEY, GROUP)})
    assert {code: str(f.severity) for code, f in found.items()} == {
        "D201": "ok",
        "D202": found["D202"].severity,
        "D204": "ok",
        "D208": "ok",
    }
    assert not any(f.weakens for f in found.values())


def test_check_changes_and_creates_no_file(path, tmp_path):
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.iterdir()}
    assert not weak(path)
    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.iterdir()} == before
    assert checked(tmp_path / "other.db")["D201"].severity == "info"
    assert not (tmp_path / "other.db").exists()


async def test_file_in_use_is_checked(tmp_path):
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
def test_unusable_file_is_an_error(tmp_path, make, said):
    make(tmp_path / "queue.db")
    finding = weak(tmp_path / "queue.db")["D201"]
    assert finding.severity == "error"
    assert said in finding.message


def test_missing_folder_is_an_error_with_the_command_that_makes_it(tmp_path):
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
def test_unsuitable_file_system_is_reported(path, tmp_path, kind, severity):
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"/dev/vda / ext4 rw 0 0\nfar:/q {str(tmp_path).replace(' ', chr(92) + '040')} {kind} rw 0 0\n"
    )
    finding = weak(path, mounts=mounts)["D203"]
    assert str(finding.severity) == severity
    assert kind in finding.message


def test_nearest_and_last_mount_counts(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text("a / overlay rw\nb /srv nfs rw\nc /srv/q\\040x ext4 rw\nd /srv nfs4 rw\nodd\n")
    types = {"/": "overlay", "/srv": "nfs4", "/srv/q x/y": "ext4", "/srvx": "overlay"}
    assert {path: file_system(Path(path), mounts) for path in types} == types
    assert file_system(tmp_path, tmp_path / "none") == ""
    assert not any(map(is_network, ("overlay", "ext4", "xfs", "btrfs", "tmpfs", "fuse.fuse-overlayfs", "")))


def test_unsynced_commits_are_reported(path):
    assert "synchronous=normal" in weak(path, synchronous="normal")["D204"].message


def test_other_journal_is_reported(path):
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


async def test_nearly_full_disk_is_reported(small):
    async with SQLiteBackend(small / "queue.db") as backend:
        found = {finding.code: finding for finding in await backend.check_health()}
    assert " MiB are left on the disk" in found["D206"].message
    assert found["D203"].severity == "warning"


@pytest.mark.parametrize(("mode", "severity"), [(0o602, "error"), (0o606, "error"), (0o604, "warning")])
def test_file_open_to_others_is_reported_with_the_command_that_fixes_it(path, mode, severity):
    path.chmod(mode)
    finding = weak(path)["D207"]
    assert (str(finding.severity), finding.hint) == (severity, f"chmod 600 {path}")


def test_folder_writable_by_others_is_reported_unless_sticky(path):
    path.parent.chmod(0o777)
    assert weak(path)["D207"].hint == f"chmod o-w {path.parent}"
    path.parent.chmod(0o1777)
    assert not weak(path)


async def test_damage_is_reported(tmp_path):
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


async def test_search_for_damage_is_limited_in_time(path, monkeypatch):
    monkeypatch.setattr(health, "_SEARCH_SECONDS", -1.0)
    monkeypatch.setattr(health, "_SEARCH_STEPS", 1)
    assert checked(path)["D208"].severity == "info"


async def test_log_kept_by_a_long_read_transaction_is_reported(path, monkeypatch):
    monkeypatch.setattr(health, "_LARGE_WAL", 100_000)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM messages").fetchone()
    async with SQLiteBackend(path) as backend:
        await backend.publish(KEY, "x" * 200_000)
        assert "D209" in {finding.code for finding in await backend.check_health()}
    reader.close()


def test_orphaned_subscription_with_messages_is_reported(path):
    assert not weak(path, served={(KEY, GROUP)})
    assert not weak(path)  # it is unknown which subscriptions are served
    finding = weak(path, served={(KEY, "audit")})["D110"]
    assert finding.hint.endswith("`abe-router drop orders.created/billing`")


async def test_messages_without_a_subscription_are_reported(path):
    async with SQLiteBackend(path) as backend:
        await backend.publish("orders.lost", 1)
        await backend.publish("orders.lost", 2)
    finding = checked(path)["D111"]
    assert finding.severity == "info"
    assert "2 messages wait under keys that no subscription matches: `orders.lost` 2" in finding.message
