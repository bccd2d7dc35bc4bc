"""The backend that load_backend takes, and the warnings about it."""

from __future__ import annotations

import asyncio
import tomllib
import warnings
from contextlib import aclosing
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from abe_router.backends import make_backend, provider, providers
from abe_router.backends.abstract import AbstractBackend
from abe_router.backends.memory import MemoryBackend
from abe_router.compat.load import _log_once, choose, load_backend
from abe_router.errors import BackendError, UnknownProvider
from tests.limits import HANG

REDIS = {f"{scheme}{kind}" for scheme in ("redis", "rediss") for kind in ("", "+cluster", "+sentinel")}
OURS = {"memory", "sqlite", "unix", *REDIS}
NATIVE = """\
from abe_router.backends.memory import MemoryBackend

class FineBackend(MemoryBackend):
    pass

class PickyBackend(MemoryBackend):
    @classmethod
    def from_env(cls, env):
        raise ValueError("PICKY_URL is not set")

class UrlBackend(MemoryBackend):
    from_env = None

class Misfit:
    pass
"""


def test_the_argument_has_precedence_over_the_environment():
    backend = load_backend("memory", env={"QUEUE_BACKEND": "redis"})
    assert isinstance(backend, MemoryBackend)


def test_the_environment_can_contain_a_name():
    assert isinstance(load_backend(env={"QUEUE_BACKEND": "memory"}), MemoryBackend)


def test_the_environment_can_contain_a_url(tmp_path):
    backend = load_backend(env={"QUEUE_BACKEND": f"sqlite:///{tmp_path}/queue.db"})
    assert backend.url == f"sqlite:///{tmp_path}/queue.db"


def test_a_url_that_is_only_a_scheme_is_the_same_as_the_name():
    assert load_backend("memory://") is load_backend("memory")
    assert make_backend("memory://") is not load_backend("memory")


def test_all_calls_that_load_memory_by_name_share_its_messages():
    assert load_backend("memory") is load_backend("memory")


def test_memory_as_fallback_is_a_warning_and_one_log_line(caplog):
    _log_once.cache_clear()
    for _ in range(2):
        with pytest.warns(UserWarning, match="lost with it; set QUEUE_BACKEND"):
            assert isinstance(load_backend(env={}), MemoryBackend)
    assert caplog.text.count("no backend is configured") == 1


def test_memory_selected_by_name_gives_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_backend("memory")


@pytest.mark.parametrize(("variable", "name"), [("REDIS_URL", "redis"), ("SQLITE_PATH", "sqlite")])
def test_the_variable_of_our_provider_selects_it(variable, name):
    choice = choose(env={variable: "somewhere"})
    assert (choice.name_or_url, choice.why) == (name, f"{variable} is set")


def test_an_empty_variable_selects_nothing():
    assert choose(env={"QUEUE_BACKEND": "", "REDIS_URL": ""}).is_fallback


def test_the_error_for_an_unknown_name_lists_the_package_and_the_installed_providers():
    with pytest.raises(
        UnknownProvider, match=r"`kafka`; install the package that provides it.*memory, sqlite"
    ):
        load_backend(env={"QUEUE_BACKEND": "kafka"})


def test_the_error_for_a_misspelt_name_suggests_the_closest_one():
    with pytest.raises(UnknownProvider, match="did you mean `redis`"):
        load_backend("rediz")


def test_the_error_for_an_unknown_scheme_hides_the_password():
    with pytest.raises(UnknownProvider) as caught:
        make_backend("kafka://user:secret@host")
    assert "secret" not in str(caught.value)
    with pytest.raises(UnknownProvider, match="is not a backend URL"):
        make_backend("memory")


def test_an_installed_provider_is_taken_if_nothing_else_is_configured(install):
    install(
        "fine-backend",
        "fine_backend",
        NATIVE,
        **{"abe_router.backends": {"fine": "fine_backend:FineBackend"}},
    )
    assert choose(env={}).why == "fine-backend is installed"
    assert type(load_backend(env={})).__name__ == "FineBackend"


def test_other_selected_providers_are_listed_in_a_warning(install, acme):
    install(
        "fine-backend",
        "fine_backend",
        NATIVE,
        **{"abe_router.backends": {"fine": "fine_backend:FineBackend"}},
    )
    with pytest.warns(
        UserWarning,
        match="`fine` is used.*`abstract[+]acme` and `redis` could be used too: set QUEUE_BACKEND",
    ):
        load_backend(env={"REDIS_URL": "redis://localhost"})


def test_a_provider_for_abstract_backend_is_found_in_both_groups_and_by_both_names(install):
    for number, group in enumerate(["abe.backends.message_queue", "abe.backends.message_queue.service"]):
        install(f"q{number}", f"q{number}", **{group: {f"queue{number}": f"q{number}:AcmeBackend"}})
    for name in ("queue0", "abstract+queue0", "queue1", "abstract+queue1", "abstract+queue1://"):
        assert isinstance(load_backend(name), AbstractBackend)


def test_the_scheme_of_a_url_is_the_full_name(acme):
    with pytest.raises(UnknownProvider, match=r"did you mean `abstract\+acme`"):
        make_backend("acme://")
    with pytest.raises(BackendError, match="environment variables configure such a provider"):
        make_backend("abstract+acme://localhost")


def test_our_provider_has_precedence_over_one_for_abstract_backend_with_the_same_name(install):
    install(
        "abe-memory", "abe_memory", **{"abe.backends.message_queue": {"memory": "abe_memory:AcmeBackend"}}
    )
    assert isinstance(load_backend("memory"), MemoryBackend)
    assert isinstance(load_backend("abstract+memory"), AbstractBackend)
    assert choose(env={}).is_fallback


def test_our_providers_are_registered_for_abstract_backend_and_not_adapted():
    assert {name for name, provider in providers().items() if provider.ours} == OURS


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("nowhere:Backend", "`odd` .nowhere:Backend. cannot be loaded: ModuleNotFoundError"),
        ("odd_backend:Misfit", "`odd` .odd_backend:Misfit. is not a Backend class"),
        ("odd_backend:PickyBackend", "`odd` cannot be made from the environment: PICKY_URL is not set"),
        ("odd_backend:UrlBackend", "`odd` has no `from_env`: give the backend as a URL"),
    ],
)
def test_a_broken_provider_is_an_error_and_not_replaced_by_another(install, value, expected):
    install("odd-backend", "odd_backend", NATIVE, **{"abe_router.backends": {"odd": value}})
    with pytest.raises(BackendError, match=expected):
        load_backend(env={"QUEUE_BACKEND": "odd"})


def test_a_provider_knows_its_distribution_and_version(acme):
    provider = providers()["abstract+acme"]
    assert (provider.distribution, provider.version, provider.ours) == ("acme-queue", "1.2", False)
    assert providers()["memory"].ours


@pytest.mark.parametrize("name", ["memory", "sqlite"])
async def test_our_entry_points_for_abstract_backend_publish_and_consume(name, tmp_path, monkeypatch):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    points = project["entry-points"]["abe.backends.message_queue"]
    monkeypatch.setenv("SQLITE_PATH", str(tmp_path / "queue.db"))
    backend = EntryPoint(name, points[name], "abe.backends.message_queue").load().from_env()
    await backend.publish("orders.created", {"order_id": "A-123"})
    async with aclosing(backend.consume(group=f"{name}-entry-point")) as payloads, asyncio.timeout(HANG):
        assert await anext(payloads) == {"order_id": "A-123"}
    await backend.close()


def test_our_providers_are_found_without_a_search_and_cannot_be_replaced(install, monkeypatch):
    install("other", "other_memory", **{"abe_router.backends": {"memory": "other_memory:Backend"}})
    assert providers()["memory"].ours
    monkeypatch.setattr(provider, "entry_points", None)
    assert isinstance(make_backend("memory://"), MemoryBackend)
