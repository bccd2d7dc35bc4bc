"""What `check --no-import` reads, and whose files the router runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from abe_router.config.building.loader import Loader
from abe_router.diagnostic import render_all, render_github
from abe_router.errors import ConfigError
from abe_router.files.permissions import Permissions

SECRET, REFERENCE = "BASE64SECRET", "config.json#/auths/auth"
ROUTES = "backend: memory://\nroutes: {k: {schema: SCHEMA, consumers: {g: 'trusted_handlers:f'}}}\n"


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Return a folder of a stranger beside a folder with a secret."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    outside, inside = tmp_path / "outside", tmp_path / "repository"
    outside.mkdir()
    (inside / "schemas").mkdir(parents=True)
    (outside / "config.json").write_text(f'{{"auths": {{"auth": "{SECRET}"}}}}')
    (outside / "secret").write_text(f"{SECRET}: [\n")
    (inside / "trusted_handlers.py").write_text("def f(payload): ...\n")
    (inside / "schemas" / "s.json").write_text("{}")
    monkeypatch.chdir(inside)
    yield inside
    sys.modules.pop("trusted_handlers", None)


def refused(**options):
    """Load the routes file, which must have errors, and return all that is printed of them."""
    with pytest.raises(ConfigError) as caught:
        Loader(Path("routes.yaml"), **{"env": {}, **options}).load()
    found = caught.value.diagnostics
    return render_all(found) + "\n".join(map(render_github, found)) + repr(found)


@pytest.mark.parametrize(
    "schemas", ["../outside", "OUTSIDE", "/proc/self", "/", "..", "schemas/../../outside"]
)
@pytest.mark.parametrize(
    "rest", ["schema: secret", "schema: config.json", "schema: environ", "schema: nothing"]
)
def test_schemas_outside_the_folder_of_a_stranger_are_not_read(repository, schemas, rest):
    outside = str(repository.parent / "outside")
    Path("routes.yaml").write_text(
        f"backend: memory://\nschemas: {schemas.replace('OUTSIDE', outside)}\n"
        f"routes: {{k: {{{rest}, consumers: {{g: {{handler: 'm:f', when: {{$ref: '{REFERENCE}'}}}}}}}}}}\n"
    )
    text = refused(import_handlers=False, confined=True)
    assert "R205" in text
    assert SECRET not in text


@pytest.mark.parametrize("link", ["schemas", "schemas/s.json", "routes.yaml"])
def test_link_out_of_the_folder_of_a_stranger_is_not_followed(repository, link):
    Path("routes.yaml").write_text(ROUTES.replace("SCHEMA", "s.json"))
    target = repository.parent / "outside"
    if link == "schemas":
        (target / "s.json").write_text(SECRET)
        Path("schemas/s.json").unlink()
        Path("schemas").rmdir()
    else:
        Path(link).unlink()
        target /= "secret"
    Path(link).symlink_to(target)
    assert SECRET not in refused(import_handlers=False, confined=True)


def test_links_within_the_folder_are_followed(repository):
    Path("schemas").rename("..data")
    Path("schemas").symlink_to("..data")
    Path("real.yaml").write_text(ROUTES.replace("SCHEMA", "s.json"))
    Path("routes.yaml").symlink_to("real.yaml")
    assert Loader(Path("routes.yaml"), env={}, import_handlers=False, confined=True).load().routes


def test_schemas_outside_the_folder_are_read_without_no_import(repository):
    (repository.parent / "outside" / "t.json").write_text("{}")
    Path("routes.yaml").write_text("schemas: ../outside\n" + ROUTES.replace("SCHEMA", "t.json"))
    assert Loader(Path("routes.yaml"), env={}).load().routes


def _open_folder(repository):
    repository.chmod(0o777)


def _open_parent(repository):
    repository.parent.chmod(0o777)


def _open_handler(repository):
    (repository / "trusted_handlers.py").chmod(0o666)


def _link_into_an_open_folder(repository):
    target = repository.parent / "outside"
    (repository / "routes.yaml").rename(target / "routes.yaml")
    (repository / "routes.yaml").symlink_to(target / "routes.yaml")
    target.chmod(0o777)


def _foreign_file(repository):
    os.chown(repository / "routes.yaml", 65534, -1)


def _foreign_handler(repository):
    os.chown(repository / "trusted_handlers.py", 65534, -1)


def _foreign_folder(repository):
    os.chown(repository, 65534, -1)


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


@pytest.mark.parametrize(
    "weaken",
    [
        _open_folder,
        _open_parent,
        _open_handler,
        _link_into_an_open_folder,
        pytest.param(_foreign_file, marks=as_root),
        pytest.param(_foreign_handler, marks=as_root),
        pytest.param(_foreign_folder, marks=as_root),
    ],
)
def test_code_that_another_user_can_replace_is_refused_unless_trusted(repository, weaken):
    Path("routes.yaml").write_text(ROUTES.replace("SCHEMA", "s.json"))
    assert Loader(Path("routes.yaml"), env={}).load().routes
    weaken(repository)
    sys.modules.pop("trusted_handlers", None)
    assert "R004" in refused()
    assert "trusted_handlers" not in sys.modules
    assert Loader(Path("routes.yaml"), env={}, trust_writable=True).load().routes
    assert Loader(Path("routes.yaml"), env={}, import_handlers=False).load().routes


def test_sticky_folders_and_good_links_are_trusted(tmp_path):
    sticky = tmp_path / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    (sticky / "file").touch()
    (tmp_path / "link").symlink_to("sticky/../sticky/file")
    assert Permissions().fault(tmp_path / "link") == ""
    (sticky / "round").symlink_to("round")
    assert "too many links" in Permissions().fault(sticky / "round")
    assert Permissions().fault(tmp_path / "missing" / "file") == ""


def test_current_folder_that_is_open_to_all_is_not_imported_from(repository):
    Path("routes.yaml").write_text(ROUTES.replace("SCHEMA", "s.json"))
    elsewhere = repository.parent / "elsewhere"
    elsewhere.mkdir()
    elsewhere.chmod(0o1777)
    (elsewhere / "trusted_handlers.py").write_text("raise SystemExit('it ran')\n")
    os.chdir(elsewhere)
    Loader(repository / "routes.yaml", env={}).load()
    assert sys.path[0] == str(repository)
    assert sys.path[1] != str(elsewhere)
