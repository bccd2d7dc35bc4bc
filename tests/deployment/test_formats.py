"""Each file is what its program accepts, by the linter or the schema of that program."""

from __future__ import annotations

import copy
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from .files import COMPOSE, DOCKERFILE, FOLDER, MANIFESTS, UNITS, config_map, load

SCHEMAS = Path(__file__).parent / "schemas"
KUBERNETES = json.loads((SCHEMAS / "kubernetes-1.33.json").read_text())


def struct(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """Return the schema of an object with these properties alone."""
    properties = {**required, **optional}
    return {
        "type": "object",
        "required": [*required],
        "properties": properties,
        "additionalProperties": False,
    }


TEXT, COUNT = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}
DURATION = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"}
TEXTS = {"type": "object", "minProperties": 1, "additionalProperties": TEXT}
METADATA = struct({"name": TEXT}, labels=TEXTS)

#: The custom resources, with no more of their fields than these files use.
CUSTOM: dict[str, Any] = {
    "monitoring.coreos.com/v1 ServiceMonitor": struct(
        {
            "selector": struct({"matchLabels": TEXTS}),
            "endpoints": {
                "type": "array",
                "items": struct({"port": TEXT}, path=TEXT, interval=DURATION),
                "minItems": 1,
            },
        }
    ),
    "keda.sh/v1alpha1 TriggerAuthentication": struct(
        {
            "secretTargetRef": {
                "type": "array",
                "items": struct({"parameter": TEXT, "name": TEXT, "key": TEXT}),
            }
        }
    ),
    "keda.sh/v1alpha1 ScaledObject": struct(
        {
            "scaleTargetRef": struct({"name": TEXT}),
            "triggers": {
                "type": "array",
                "minItems": 1,
                "items": struct(
                    {"type": {"const": "metrics-api"}, "metadata": TEXTS},
                    authenticationRef=struct({"name": TEXT}),
                ),
            },
        },
        minReplicaCount=COUNT,
        maxReplicaCount=COUNT,
        pollingInterval=COUNT,
        cooldownPeriod=COUNT,
    ),
}


def errors(document: dict[str, Any]) -> list[str]:
    """Return what is wrong with a manifest."""
    kind = f"{document['apiVersion']} {document['kind']}"
    if kind in KUBERNETES["kinds"]:
        schema = {**KUBERNETES, "$ref": f"#/$defs/{KUBERNETES['kinds'][kind]}"}
    else:
        head = {"apiVersion": TEXT, "kind": TEXT, "metadata": METADATA}
        schema = struct({**head, "spec": CUSTOM[kind]})
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(document)]


@pytest.mark.parametrize("name", MANIFESTS, ids="/".join)
def test_manifest_fits_the_schema_of_its_kind(name):
    assert errors(MANIFESTS[name]) == []


def test_config_map_fits_its_schema_and_its_size_limit():
    made = config_map()
    assert errors(made) == []
    assert len(json.dumps(made)) < 1 << 20


def changed(document: Any, *path: str | int, value: Any) -> Any:
    """Return a copy of a document with another value at a path."""
    made = copy.deepcopy(document)
    inner = made
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return made


POD = ("spec", "template", "spec")


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Deployment", (*POD, "terminationGraceSeconds"), 45),
        ("Deployment", (*POD, "containers", 0, "readinessProbe", "httpGet"), {"path": "/readyz"}),
        ("Deployment", (*POD, "containers", 0, "securityContext", "readOnlyRootFileSystem"), True),
        ("Deployment", ("spec", "replicas"), "two"),
        ("Service", ("spec", "ports", 0, "targetport"), 8470),
        ("PodDisruptionBudget", ("spec", "maxUnavailible"), 1),
        ("ServiceMonitor", ("spec", "endpoints", 0, "ports"), "probes"),
        ("ScaledObject", ("spec", "maxReplicas"), 10),
    ],
)
def test_schemas_find_a_mistake(kind, path, value):
    assert errors(changed(MANIFESTS[kind, "abe-router"], *path, value=value))


def compose_errors(document: Any) -> list[str]:
    schema = json.loads((SCHEMAS / "compose.json").read_text())
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(document)]


def test_compose_file_fits_the_specification():
    assert compose_errors(COMPOSE) == []
    assert compose_errors(changed(COMPOSE, "services", "router", "depnds_on", value=["redis"]))


def test_kustomization_has_known_fields_and_files_that_exist():
    kustomization = load("kustomization.yaml")
    assert (kustomization["apiVersion"], kustomization["kind"]) == (
        "kustomize.config.k8s.io/v1beta1",
        "Kustomization",
    )
    fields = {"apiVersion", "kind", "namespace", "resources", "configMapGenerator", "generatorOptions"}
    assert set(kustomization) == fields
    for name in (*kustomization["resources"], *kustomization["configMapGenerator"][0]["files"]):
        assert (FOLDER / name).is_file()


def test_prometheus_accepts_its_configuration_with_the_shipped_alerts(promtool):
    assert "rules found" in promtool("check", "config", FOLDER / "prometheus.yaml")


@pytest.fixture
def hadolint() -> Path:
    """Return the linter, which the extra `dev` installs on Linux with x86-64."""
    found = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        is_expected = os.environ.get("CI") and (sys.platform, platform.machine()) == ("linux", "x86_64")
        (pytest.fail if is_expected else pytest.skip)("hadolint is not installed")
    return Path(found)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", ""),
        ("FROM python:latest\n", "DL3007"),
        ("FROM python:3.13-slim-trixie\nRUN pip install abe-router\n", "DL3013"),
        ("FROM python:3.13-slim-trixie\nUSER root\n", "DL3002"),
    ],
    ids=["shipped", "latest", "unpinned", "root"],
)
def test_hadolint_accepts_the_dockerfile_and_finds_mistakes(hadolint, text, code):
    command = [hadolint, "--no-color", "--failure-threshold", "style", "-"]
    done = subprocess.run(
        command, input=text or DOCKERFILE.read_text(), capture_output=True, text=True, check=False
    )
    assert bool(done.returncode) == bool(code), done.stdout
    assert code in done.stdout


needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@needs_systemd
@pytest.mark.parametrize("mistake", ["", "WatchdogSeconds=30"])
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_accepts_the_unit(tmp_path, unit, mistake):
    # systemd-analyze looks for the program and the user, and those of the unit are not there.
    text = unit.read_text().replace("/srv/shop/.venv/bin/abe-router", sys.executable)
    text = text.replace("/srv/%i/.venv/bin/abe-router", sys.executable).replace("User=shop\n", "")
    path = tmp_path / unit.name.replace("@", "@shop")
    path.write_text(text.replace("WatchdogSec=30", mistake or "WatchdogSec=30"))
    command = ["systemd-analyze", "verify", "--man=no", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [line for line in done.stderr.splitlines() if path.name in line]
    assert bool(found) == bool(mistake), done.stderr


@needs_systemd
def test_systemd_rates_the_exposure_of_the_unit_as_ok():
    # The highest rating of "OK" is 4.9.
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=49", UNITS[0]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
