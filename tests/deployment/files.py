"""Reads the files of examples/operating, and describes the image that its Dockerfile makes."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import yaml

from abe_router.cli.root import root

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "operating"
DOCKERFILE = FOLDER / "Dockerfile"


def load(name: str) -> Any:
    """Return the document of a YAML file."""
    (document,) = load_all(name)
    return document


def load_all(name: str) -> list[Any]:
    """Return the documents of a YAML file."""
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


#: The manifests of Kubernetes, by kind and name.
MANIFESTS: dict[tuple[str, str], Any] = {
    (document["kind"], document["metadata"]["name"]): document
    for path in sorted((FOLDER / "kubernetes").iterdir())
    for document in load_all(f"kubernetes/{path.name}")
}
DEPLOYMENTS = {name: found for (kind, name), found in MANIFESTS.items() if kind == "Deployment"}
COMPOSE = load("compose.yaml")
ROUTES = load("config/routes.yaml")
UNITS = [FOLDER / "systemd" / name for name in ("abe-router.service", "abe-router@.service")]


def pod(name: str) -> Any:
    """Return the specification of the pods of a Deployment."""
    return DEPLOYMENTS[name]["spec"]["template"]["spec"]


def container(name: str) -> Any:
    """Return the one container of a Deployment."""
    (found,) = pod(name)["containers"]
    return found


def config_map() -> dict[str, Any]:
    """Return the ConfigMap that kustomization.yaml makes."""
    kustomization = load("kustomization.yaml")
    (made,) = kustomization["configMapGenerator"]
    data = {Path(name).name: (FOLDER / name).read_text() for name in made["files"]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": made["name"]}, "data": data}


def is_sent(name: str) -> bool:
    """Say whether `.dockerignore` lets a file into the build: the last pattern that matches decides."""
    sent = True
    for line in (FOLDER / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        parts = [Path(name), *Path(name).parents]
        if (
            pattern
            and not line.startswith("#")
            and any(fnmatch.fnmatch(str(part), pattern) for part in parts)
        ):
            sent = line.startswith("!")
    return sent


@dataclass
class Stage:
    """One stage of the Dockerfile: its instructions in order, each with its arguments, without flags."""

    base: str
    name: str
    steps: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        """Return the arguments of each such instruction."""
        return [arguments for found, arguments, _ in self.steps if found == instruction]

    def copies(self) -> list[tuple[tuple[str, str], dict[str, str]]]:
        """Return the source and the target of each COPY, and its flags."""
        return [
            ((source, target), flags)
            for instruction, arguments, flags in self.steps
            if instruction == "COPY"
            for source, target in [arguments.split()]
        ]

    def command(self) -> list[str]:
        """Return what a container runs."""
        (arguments,) = self.all("CMD")
        found: list[str] = json.loads(arguments)
        return found

    def health_check(self) -> list[str]:
        """Return the command of the health check."""
        (arguments,) = self.all("HEALTHCHECK")
        found: list[str] = json.loads(arguments.removeprefix("CMD"))
        return found

    def environment(self) -> dict[str, str]:
        """Return the variables that the stage sets."""
        pairs = [pair for arguments in self.all("ENV") for pair in shlex.split(arguments)]
        return dict(pair.split("=", 1) for pair in pairs)


def stages(text: str) -> list[Stage]:
    """Return the stages of a Dockerfile."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    found: list[Stage] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, _, rest = line.partition(" ")
        flags: dict[str, str] = {}
        while match := re.match(r"\s*--([\w-]+)=(\S+)\s+", rest):
            flags[match[1]] = match[2]
            rest = rest[match.end() :]
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(base.strip(), name.strip()))
        else:
            found[-1].steps.append((instruction, rest.strip(), flags))
    return found


BUILD, IMAGE = stages(DOCKERFILE.read_text())


def environment_variables() -> set[str]:
    """Return the names of the environment variables that the commands read."""
    known = {"ABE_ROUTER_CONFIG"}
    for name in root.list_commands(click.Context(root)):
        command = root.get_command(click.Context(root), name)
        for parameter in command.params if command else ():
            names = parameter.envvar or ()
            known |= {names} if isinstance(names, str) else {*names}
    return known
