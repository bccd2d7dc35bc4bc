"""Values of variables and passwords appear in nothing that the program prints or logs.

Each position of the routes file that takes a value is filled with a variable whose value is wrong there, so
that a fault is reported about it.
"""

# ruff: noqa: E501  a position is one line

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from abe_router.config.reading.secrets import Secrets
from tests.cli.conftest import Run

#: A value that fits nowhere, and what of it must not be printed, in either case of letters.
VALUE, PARTS = "xyzzyHunter2Plugh", ("xyzzy", "hunter2", "plugh")
OPTIONS = (
    *("concurrency", "timeout", "retry", "max_deliveries", "max_unacked", "lease", "drain", "dead_letter"),
    *("when", "on_invalid", "start", "paused", "batch", "rate", "order_by"),
)
BACKENDS = (
    *("VAR", "VAR://x", "redis://:VAR@h:port", "redis://h/VAR", "redis://h/?VAR=1", "redis://u:p?VAR@h"),
    *("redis://u:p/VAR@h", "redis://u:p#VAR@h", "redis:u:VAR@h", "sqlite:///x?VAR=1", "sqlite://VAR@h"),
    *("redis://h/?db=VAR", "redis://h/?credential_provider=VAR", "rediss://h/?ssl_cert_reqs=VAR"),
)
HANDLERS = ("VAR", "VAR:f", "shop_handlers:VAR", "VAR.a:f", "shop_handlers:_VAR", "shop_handlers:charge.VAR")
WHENS = (
    *("{type: VAR}", "{pattern: '(VAR'}", "{$ref: VAR}", "{$ref: '#/VAR'}", "{$ref: 'VAR.json#/a'}"),
    *("{$schema: VAR}", "{minimum: VAR}", "{required: VAR}", "{enum: VAR}", "{properties: VAR}", "[VAR]"),
    *("{allOf: [VAR]}", "{$ref: 'http://VAR/x'}", "{properties: {a: VAR}}", "{format: VAR, type: [VAR]}"),
)
CASES = (
    *("{publish: {key: VAR, payload: 1}}", "{publish: {key: 'VAR x', payload: 1}}", "{publish: VAR}"),
    *(
        "{publish: {key: k, payload: 1}, handled: VAR}",
        "{publish: {key: k, payload: 1}, emitted: {key: VAR}}",
    ),
    "{publish: {key: k, payload: 1}, dead: {route: k/g, kind: VAR, at: VAR}}",
    "{publish: {key: k, payload: 1}, rejected: VAR}",
)
CONSUMER = "routes: {k: {consumers: {g: {handler: 'shop_handlers:charge', OPTION}}}}"
FILES = {
    **{f"backend {url}": f"backend: '{url}'\nroutes: {{}}" for url in BACKENDS},
    **{f"defaults {name}": f"defaults: {{{name}: 'VAR'}}\nroutes: {{}}" for name in OPTIONS},
    **{name: CONSUMER.replace("OPTION", f"{name}: 'VAR'") for name in OPTIONS},
    **{
        f"file {name}": f"{name}: 'VAR x'\nroutes: {{}}"
        for name in ("prefix", "formats", "unrouted", "defaults")
    },
    **{
        f"entry {name}": f"routes: {{k: {{{name}: 'VAR '}}}}" for name in ("schema", "id", "dedupe", "retain")
    },
    **{f"handler {path}": f"routes: {{k: {{consumers: {{g: '{path}'}}}}}}" for path in HANDLERS},
    **{f"when {when}": CONSUMER.replace("OPTION", f"when: {when}") for when in WHENS},
    **{f"case {case}": f"{CONSUMER.replace(', OPTION', '')}\ntests: {{c: {case}}}" for case in CASES},
    "schemas": "schemas: 'VAR'\nroutes: {k: {schema: order.json}}",
    "emit": CONSUMER.replace("OPTION", "emit: 'VAR'"),
    "emit long": CONSUMER.replace(
        "OPTION", "emit: 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaVAR'"
    ),
    "octal": "routes: {k: {retain: '0VAR'}}",
}
SECRET_PASSWORD = "S3CRETPASSWORD"
URLS = (
    f"redis://user:{SECRET_PASSWORD}@127.0.0.1:1/0",
    f"redis://127.0.0.1:1/0?password={SECRET_PASSWORD}",
    f"redis://user:{SECRET_PASSWORD}?x@127.0.0.1:1/0",
    f"rediss://127.0.0.1:1/0?ssl_password={SECRET_PASSWORD}",
    f"redis:user:{SECRET_PASSWORD}@127.0.0.1",
    f"sqlite://user:{SECRET_PASSWORD}@127.0.0.1/x",
)
COMMANDS = (
    *(
        ("status",),
        ("status", "--json"),
        ("doctor",),
        ("doctor", "--json"),
        ("dead", "list"),
        ("routes", "--json"),
    ),
    *(("publish", "orders.created", '{"id": 1, "total": 1}'), ("plan",), ("explain", "orders.created", "{}")),
    *(("check",), ("check", "--format", "json"), ("check", "--format", "github"), ("test",)),
)


def leaks(text: str) -> list[str]:
    """Return the parts of the secret that a text has."""
    return [part for part in PARTS if part in text.casefold()]


@pytest.mark.parametrize("name", FILES)
def test_no_fault_shows_the_value_of_a_variable(
    run: Run, shop: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("VAR", VALUE)
    text = FILES[name].replace("VAR", "${VAR}")
    (shop / "routes.yaml").write_text(text if text.startswith("backend") else f"backend: memory://\n{text}")
    printed = ""
    for options in ((), ("--format", "json"), ("--format", "github"), ("--no-import",)):
        done = run("check", *options)
        assert done.code in (0, 78), done.err
        printed += done.out + done.err
    assert leaks(printed) == [], printed
    assert leaks(caplog.text) == []


def test_no_command_shows_the_value_of_a_variable(
    run: Run, shop: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("VAR", VALUE)
    entries = "".join(
        f"  k{n}: {{consumers: {{g: {{handler: 'shop_handlers:charge', when: {when.replace('VAR', '${VAR}')}}}}}}}\n"
        for n, when in enumerate(WHENS)
    )
    (shop / "routes.yaml").write_text(f"backend: 'sqlite:///x.db'\nroutes:\n{entries}")
    for command in COMMANDS:
        done = run(*command)
        assert leaks(done.out + done.err) == [], command
    assert leaks(caplog.text) == []


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("where", ["file", "option", "variable"])
def test_no_command_shows_a_password(
    run: Run,
    shop: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    url: str,
    where: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    options: tuple[str, ...] = ()
    if where == "file":
        text = (shop / "routes.yaml").read_text()
        (shop / "routes.yaml").write_text(text.replace("sqlite:///shop.db", f"'{url}'"))
    elif where == "option":
        options = ("--backend", url)
    else:
        monkeypatch.setenv("ABE_ROUTER_BACKEND", url)
    for command in COMMANDS:
        if where == "option" and command[0] in {"plan", "explain", "test", "routes"}:
            continue
        done = run(*command, *options)
        assert "S3CRET" not in done.out + done.err, command
    assert "S3CRET" not in caplog.text


def test_value_is_hidden_in_part_and_in_another_form() -> None:
    secrets = Secrets()
    secrets.read_file("backend: redis://${HOST}/0")
    secrets.add({"HOST": "Redis-Prod-01.Example.org", "N": "1", "SAME": "backend"})
    assert secrets.hidden_in("cannot reach Redis-Prod-01.Example.org") == "cannot reach ${HOST}"
    assert (
        secrets.hidden_in("no module `prod`, no `examp`, 1 error") == "no module `***`, no `examp`, 1 error"
    )
    assert secrets.hidden_in("redis://backend") == "redis://backend"
    secrets.add({"LONG": "abcdefghijklmnopqrstuvwxyz"})
    assert secrets.hidden_in("`ABCDEFGHIJ…` is cut") == "`***…` is cut"
