"""The dashboard in a browser of another machine: by plain HTTP, and behind a proxy that ends TLS.

A browser trusts a loopback address as it trusts TLS, so all other tests of pages show less than these.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.http_server.serving import Serving, all_tokens, routes_file, secret, serving

from .browser import Browser
from .letters import Dying, kill

ROUTE = "/routes/orders.created/billing"
LIST = "/dead/orders.created/billing"


def own_address() -> str:
    """Return an address of this machine that is not loopback. No packet is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, suppress(OSError):
        sock.connect(("192.0.2.1", 9))
        return str(sock.getsockname()[0])
    assert not os.environ.get("CI"), "the machine has only loopback addresses"
    pytest.skip("the machine has only loopback addresses")


@asynccontextmanager
async def tls_proxy(folder: Path, host: str, port: int) -> AsyncIterator[int]:
    """Run a proxy that ends TLS and adds no headers, for a server of this machine; yield its port."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=abe-router"]
    files = ["-addext", f"subjectAltName=IP:{host}", "-keyout", str(key), "-out", str(certificate)]
    await asyncio.to_thread(subprocess.run, [*command, *files], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):
                while part := await reader.read(65_536):
                    writer.write(part)
                    await writer.drain()
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        finally:
            writer.transport.abort()

    connections = set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            connections.add(task)
        other_reader, other_writer = await asyncio.open_connection(host, port)
        await asyncio.gather(pass_on(reader, other_writer), pass_on(other_reader, writer))

    server = await asyncio.start_server(serve, host, 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


@asynccontextmanager
async def reached(folder: Path, *, tls: bool) -> AsyncIterator[tuple[Serving, str]]:
    """Run a server that other machines reach; yield it, and the address that a browser knows."""
    host = own_address()
    text = routes_file(all_tokens()).replace("listen: 127.0.0.1:0", f"listen: {host}:0\n  republish: true")
    async with serving(folder, text) as served:
        port = served.server.address.port
        if not tls:
            yield served, f"http://{host}:{port}"
            return
        async with tls_proxy(folder, host, port) as outer:
            yield served, f"https://{host}:{outer}"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("tls", [False, True], ids=["plain HTTP", "behind a TLS proxy"])
async def test_every_form_works_for_a_browser_of_another_machine(
    browser: Browser, tmp_path: Path, tls: bool
) -> None:
    await browser.command("Security.setIgnoreCertificateErrors", {"ignore": True})
    async with reached(tmp_path, tls=tls) as (served, url):
        *_, last = await kill(served.backend, [Dying({"total": number}) for number in range(6)])
        await (await served.backend.subscribe("former.key", "old")).close()

        await browser.log_in_with_form(url, secret("admin"))
        assert await browser.address() == "/routes"
        await browser.press("dark")
        assert await browser.texts("html[data-theme=dark] [aria-pressed=true]") == ["dark"]
        cookies = await browser.run(lambda driver: driver.get_cookies())
        assert [each["secure"] for each in cookies] == [tls, tls]

        await browser.open("/publish?key=payments.made")
        await browser.fill("json", '{"sku": "TEA"}')
        await browser.until("#verdict", lambda text: "would be accepted" in text)  # a script has asked
        await browser.press("Check")
        await browser.press("Publish to payments.made")
        assert "to payments.made" in await browser.text("#notice")

        await browser.open(ROUTE)
        await browser.fill("why", "gateway down")
        await browser.fill("for", "40m")
        await browser.press("Pause or limit orders.created/billing")
        assert "gateway down" in await browser.text("#notice")
        await browser.press("Resume orders.created/billing")
        assert "no longer paused" in await browser.text("#notice")

        await browser.open("/routes/former.key/old")
        await browser.press("Drop former.key/old…")
        await browser.press("Drop former.key/old")
        assert "former.key/old" in await browser.text("#notice")

        await browser.open(f"{LIST}/{last}")
        await browser.press("Change and publish…")
        await browser.press(f"Publish in place of {last}")
        assert f"in place of dead letter {last}, and purged" in await browser.text()

        await browser.open(f"{LIST}/replay")
        await browser.fill("rate", "1/m")
        await browser.press("Replay 5 dead letters")
        await browser.press("Stop replay 1")
        assert "Replay 1 is stopped" in await browser.text()
        await browser.press("Continue replay 1")
        assert "Replay 1 continues" in await browser.text()
        await browser.press("Stop replay 1")

        await browser.open(f"{LIST}/purge?first=1")
        await browser.press("Purge 1 dead letter")
        assert "Purged 1 dead letter." in await browser.text()

        await browser.press("Log out")
        await browser.open("/routes")
        assert await browser.address() == "/login?back=%2Froutes"
