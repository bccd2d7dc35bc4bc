"""`abe-router backends`: the installed providers, their features, and the selected one."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Run


@pytest.fixture(autouse=True)
def _nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("QUEUE_BACKEND", "REDIS_URL", "SQLITE_PATH"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def acme(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a provider for Abstract Backend, and a broken one."""
    monkeypatch.syspath_prepend(shop)
    info = shop / "acme_queue-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-queue\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "[abe.backends.message_queue]\nacme = acme_cli_queue:Acme\nbroken = nowhere:Broken\n"
    )
    (shop / "acme_cli_queue.py").write_text(
        "class Acme:\n"
        "    @classmethod\n    def from_env(cls): return cls()\n"
        "    async def publish(self, key, payload): ...\n"
        "    async def consume(self, *, group=None): yield {}\n"
    )


def row(out: str, name: str) -> list[str]:
    (line,) = [line for line in out.splitlines() if line.startswith(name)]
    return line.split()


def test_built_in_providers_are_listed_with_origin_and_features(run: Run) -> None:
    done = run("backends")
    assert done.code == 0
    names = "redis, rediss, redis+cluster, rediss+cluster, redis+sentinel, rediss+sentinel, unix"
    assert row(done.out, names)[7] == "abe-router"
    assert row(done.out, "sqlite")[3:9] == ["yes"] * 6
    assert row(done.out, "memory")[3:9] == ["no", "no", "yes", "yes", "yes", "yes"]
    assert "nothing else is installed or configured" in done.out


def test_selected_provider_is_shown_with_the_reason(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://localhost/0")
    monkeypatch.setenv("SQLITE_PATH", "here.db")
    done = run("backends")
    assert "REDIS_URL is set" in done.out
    assert done.err == "hint: sqlite is possible too; set QUEUE_BACKEND to choose\n"


def test_abstract_provider_shows_missing_features_and_broken_one_its_error(run: Run, acme: None) -> None:
    done = run("backends")
    assert row(done.out, "abstract+acme")[1:9] == ["acme-queue", "1.2", "no", "yes", "no", "no", "no", "no"]
    assert row(done.out, "abstract+broken")[1:9] == ["acme-queue", "1.2", *"??????"]
    assert "`abstract+broken` (nowhere:Broken) cannot be loaded: ModuleNotFoundError" in done.err
    assert done.code == 0


def test_adapter_of_a_shadowed_name_is_not_selected(
    run: Run, acme: None, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shop / "acme_queue-1.2.dist-info/entry_points.txt").write_text(
        "[abe.backends.message_queue.service]\nsqlite = acme_cli_queue:Acme\n"
    )
    monkeypatch.setenv("QUEUE_BACKEND", "sqlite")
    done = run("backends", "--json").json
    assert [p["names"] for p in done["providers"]][-1] == ["abstract+sqlite"]
    assert [p["written_for"] for p in done["providers"]][-1] == "abstract-backend"
    assert done["selected"] == {
        "name_or_url": "sqlite",
        "why": "QUEUE_BACKEND is set",
        "others": [],
        "is_fallback": False,
        "fault": "",
    }


@pytest.mark.parametrize(
    ("named", "error"),
    [
        ("kafka", "install the package that provides it"),
        ("broken", "cannot be loaded"),
        ("acme://", "abstract+acme"),
    ],
)
def test_named_provider_that_is_missing_or_broken_exits_1(
    run: Run, acme: None, monkeypatch: pytest.MonkeyPatch, named: str, error: str
) -> None:
    monkeypatch.setenv("QUEUE_BACKEND", named)
    done = run("backends")
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith("error: QUEUE_BACKEND is set, but ")
    assert error in done.err


def test_passwords_are_not_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE_BACKEND", "redis://ada:secret@localhost/0")
    done = run("backends", "--json")
    assert done.json["selected"]["name_or_url"] == "redis://***@localhost/0"
    assert "secret" not in done.out + done.err
