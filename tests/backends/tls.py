"""TLS in tests: a certificate, and why the Redis server cannot use it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from abe_router.testing import RedisServer
from abe_router.testing.redis_server import free_port


def certificate(folder: Path) -> list[str]:
    """Make a key and a certificate for localhost; return the options of a server that uses them."""
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost"
    )
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([*command.split(), *names], cwd=folder, check=True, capture_output=True)
    files = ["--tls-cert-file", f"{folder}/cert.pem", "--tls-key-file", f"{folder}/key.pem"]
    return [*files, "--tls-auth-clients", "no"]


def tls_missing(program: str, folder: Path) -> str:
    """Return what TLS wants on this machine, or an empty text if a server listens with it."""
    if shutil.which("openssl") is None:
        return "openssl is not installed"
    try:
        with RedisServer(folder, options=["--tls-port", str(free_port()), *certificate(folder)]):
            return ""
    except RuntimeError:
        return f"{program} is built without TLS"
