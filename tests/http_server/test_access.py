"""Roles, the keys that a token is limited to, tokens and their files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from abe_router.http.access import Caller, Role, Token, digest, find_token
from abe_router.http.security import Security
from abe_router.http.tokens import TOKEN_FILE, local_token, read_tokens
from abe_router.routing.http_options import (
    HttpOptions,
    ListenAddress,
    TokenOptions,
    is_loopback,
    parse_address,
)


def test_roles_include_what_they_are_meant_to() -> None:
    allowed = {role: {each for each in Role if Caller("x", frozenset({role})).allows(each)} for role in Role}
    assert allowed == {
        Role.VIEWER: {Role.VIEWER},
        Role.READER: {Role.VIEWER, Role.READER},
        Role.PUBLISHER: {Role.PUBLISHER},
        Role.OPERATOR: {Role.VIEWER, Role.OPERATOR},
        Role.ADMIN: set(Role),
    }
    limited = Caller("x", frozenset({Role.VIEWER}), ("orders.#", "payments.made"))
    assert limited.allows(Role.VIEWER, "orders.eu.created")
    assert limited.allows(Role.VIEWER, "payments.made")
    assert not limited.allows(Role.VIEWER, "payments.*")
    assert limited.is_limited


def options(*tokens: TokenOptions) -> HttpOptions:
    return HttpOptions(ListenAddress("127.0.0.1", 0), tokens=tokens)


def test_the_file_of_a_token_has_the_token_or_its_hash(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = {
        "plain": "a-token-of-an-operator\n",
        "hashed": f"sha256:{digest('a-token-of-an-operator')}\n",
        "short": "short",
        "broken": "sha256:abc",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    given = [TokenOptions(name, None, tmp_path / name, ("viewer",)) for name in (*texts, "missing")]
    tokens = read_tokens(options(*given))
    assert [token.caller.name for token in tokens] == ["plain", "hashed"]
    assert find_token(tokens, "a-token-of-an-operator") is not None
    assert find_token(tokens, "another token") is None
    assert len(caplog.records) == 3
    assert "a-token" not in caplog.text


def test_the_own_token_is_kept_for_its_user_alone(tmp_path: Path) -> None:
    token = local_token(tmp_path)
    path = tmp_path / TOKEN_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert token.digest == digest(path.read_text().strip())
    assert local_token(tmp_path) == token
    path.chmod(0o644)  # another user may have read it
    assert local_token(tmp_path) != token
    assert path.stat().st_mode & 0o777 == 0o600
    path.unlink()
    (tmp_path / "stolen").write_text("a-token-that-a-stranger-chose")
    path.symlink_to(tmp_path / "stolen")
    assert local_token(tmp_path).digest != digest("a-token-that-a-stranger-chose")
    assert not path.is_symlink()
    assert (tmp_path / "stolen").read_text() == "a-token-that-a-stranger-chose"


@pytest.mark.skipif(os.getuid() == 0, reason="root can write everywhere")
def test_a_folder_that_cannot_be_written_still_gives_a_token(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert local_token(tmp_path) != local_token(tmp_path)


def test_addresses_are_parsed_strictly() -> None:
    assert parse_address("127.0.0.1:8470") == ListenAddress("127.0.0.1", 8470)
    assert str(parse_address("[::1]:80")) == "[::1]:80"
    for text in (
        "8470",
        ":8470",
        "127.0.0.1",
        "127.0.0.1:99999",
        "::1:80",
        "[x]:80",
        "a b:80",
        "127.0.0.1:80/x",
    ):
        with pytest.raises(ValueError):
            parse_address(text)
    assert [is_loopback(host) for host in ("localhost", "a.localhost", "127.9.9.9", "::1")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "localhost.evil")] == [False] * 4


async def test_the_first_link_logs_in_once_and_a_session_ends_with_its_token() -> None:
    token = Token(digest("secret"), Caller("local", frozenset({Role.ADMIN})))
    security = Security([token])
    code = security.login_code
    assert await security.log_in("unknown") is None
    session = await security.log_in(code)
    assert session is not None
    assert await security.log_in(code) is None
    headers = {"host": ["127.0.0.1:80"], "cookie": [f"abe-router-session-80={session}"]}
    caller = security.find_caller("GET", headers, "")
    assert caller is not None
    assert caller.name == "local"
    other = {**headers, "host": ["127.0.0.1:81"]}
    assert security.find_caller("GET", other, "") is None
    security.update([Token(digest("new"), token.caller)])
    assert security.find_caller("GET", headers, "") is None
