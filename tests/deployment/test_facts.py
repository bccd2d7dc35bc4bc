"""The files agree with each other, with the program, and with the routes file that they deploy."""

from __future__ import annotations

import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from abe_router.cli.root import root
from abe_router.config.building.loader import Loader
from abe_router.http.security import Security
from abe_router.process.deadline import STORE_TIME
from abe_router.process.slot import END_TIME
from abe_router.routing.table import RouteTable

from .files import (
    BUILD,
    COMPOSE,
    DEPLOYMENTS,
    FOLDER,
    IMAGE,
    MANIFESTS,
    ROOT,
    ROUTES,
    UNITS,
    config_map,
    container,
    environment_variables,
    is_sent,
    load,
    pod,
    stages,
)

LISTEN, PROBES = (int(ROUTES["http"][name].rpartition(":")[2]) for name in ("listen", "probes"))
#: The folder of the tokens in a container, and their names.
TOKENS = {Path(token["file"]) for token in ROUTES["http"]["tokens"].values()}
ROUTER = COMPOSE["services"]["router"]


@pytest.fixture
def table(monkeypatch) -> Iterator[RouteTable]:
    """Return the route table that the files deploy."""
    monkeypatch.setenv("ABE_ROUTER_BACKEND", "redis://redis/0")
    monkeypatch.syspath_prepend(FOLDER)
    yield Loader(FOLDER / "config" / "routes.yaml").load()
    sys.modules.pop("handlers", None)  # other tests have a module of this name


def test_routes_file_has_no_faults(table):
    assert len(table.routes) == 1


def test_stops_allow_more_than_the_longest_drain(table):
    needed = max(route.drain for route in table.routes) + END_TIME + STORE_TIME
    assert pod("abe-router")["terminationGracePeriodSeconds"] > needed
    assert int(ROUTER["stop_grace_period"].removesuffix("s")) > needed
    for unit in UNITS:
        (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit.read_text(), re.MULTILINE)
        assert int(seconds) > needed


def commands() -> list[list[str]]:
    """Return the command lines of `abe-router` in all files."""
    units = [re.findall(r"^ExecStart=\S+/(abe-router .+)$", unit.read_text(), re.MULTILINE) for unit in UNITS]
    found = [shlex.split(line) for lines in units for line in lines]
    return [IMAGE.command(), *(container(name)["args"] for name in DEPLOYMENTS), *found]


@pytest.mark.parametrize("command", commands(), ids=shlex.join)
def test_command_has_valid_arguments(command):
    program, name, *arguments = command
    assert program == "abe-router"
    context = root.make_context("abe-router", [name, *arguments])
    found = root.get_command(context, name)
    assert found is not None
    found.make_context(name, arguments, parent=context)


def test_environment_variables_are_those_of_the_program():
    known = environment_variables()
    named = {
        name
        for path in FOLDER.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
        for name in re.findall(r"ABE_ROUTER_\w+", path.read_text())
    }
    assert named == {"ABE_ROUTER_BACKEND", "ABE_ROUTER_CONFIG", "ABE_ROUTER_TRUST_WRITABLE"} & known


def test_ports_are_those_of_the_routes_file():
    assert IMAGE.all("EXPOSE") == [f"{LISTEN} {PROBES}"]
    assert f"http://127.0.0.1:{PROBES}/livez" in IMAGE.health_check()[-1]
    assert ROUTER["ports"] == [f"127.0.0.1:{LISTEN}:{LISTEN}"]
    (scrape,) = load("prometheus.yaml")["scrape_configs"]
    (found,) = scrape["dns_sd_configs"]
    assert (found["names"], found["port"]) == (["router"], PROBES)
    for name in DEPLOYMENTS:
        ports = {port["name"]: port["containerPort"] for port in container(name)["ports"]}
        assert ports == {"http": LISTEN, "probes": PROBES}
    for kind, name in MANIFESTS:
        if kind == "Service":
            for port in MANIFESTS[kind, name]["spec"]["ports"]:
                assert port["targetPort"] == port["name"]
                assert port["port"] == {"http": LISTEN, "probes": PROBES}[port["name"]]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_probes_ask_the_listener_without_a_token(name):
    probes = {probe: container(name)[f"{probe}Probe"] for probe in ("startup", "liveness", "readiness")}
    paths = {probe: found["httpGet"]["path"] for probe, found in probes.items()}
    assert paths == {"startup": "/startupz", "liveness": "/livez", "readiness": "/readyz"}
    assert {found["httpGet"]["port"] for found in probes.values()} == {"probes"}


def test_labels_select_the_pods_of_their_deployment():
    for name, deployment in DEPLOYMENTS.items():
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"] == labels
        assert MANIFESTS["Service", name]["spec"]["selector"] == labels
    router = DEPLOYMENTS["abe-router"]["spec"]["selector"]["matchLabels"]
    assert MANIFESTS["PodDisruptionBudget", "abe-router"]["spec"]["selector"]["matchLabels"] == router
    monitor = MANIFESTS["ServiceMonitor", "abe-router"]["spec"]
    assert monitor["selector"]["matchLabels"] == MANIFESTS["Service", "abe-router"]["metadata"]["labels"]
    assert monitor["endpoints"][0]["port"] in {
        port["name"] for port in MANIFESTS["Service", "abe-router"]["spec"]["ports"]
    }


def test_containers_run_without_rights():
    assert IMAGE.all("USER") == ["10001:10001"]
    assert IMAGE.steps[-1][0] == "CMD"
    for name in DEPLOYMENTS:
        context = pod(name)["securityContext"]
        assert context["runAsNonRoot"] is True
        assert (context["runAsUser"], context["runAsGroup"]) == (10001, 10001)
        assert container(name)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert pod(name)["automountServiceAccountToken"] is False
    assert (ROUTER["read_only"], ROUTER["cap_drop"], ROUTER["tmpfs"]) == (True, ["ALL"], ["/tmp"])
    assert ROUTER["security_opt"] == ["no-new-privileges:true"]


def test_files_of_the_image_belong_to_root():
    for instruction, _, flags in IMAGE.steps:
        assert instruction != "COPY" or "chown" not in flags
        assert instruction != "ADD"


def test_versions_are_pinned():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (FOLDER / "requirements.txt").read_text() == f"abe-router[http]=={version}\n"
    images = [stage.base for stage in stages((FOLDER / "Dockerfile").read_text())]
    images += [service["image"] for service in COMPOSE["services"].values() if "image" in service]
    images += [container(name)["image"] for name in DEPLOYMENTS]
    for image in images:
        assert re.search(r":v?\d+\.\d+[\w.-]*$", image), image
    assert len(set(images[:2])) == 1  # what is compiled in the first stage runs in the second


def test_build_gets_the_files_that_the_dockerfile_copies_and_no_others():
    sources = [copied for stage in (BUILD, IMAGE) for copied, flags in stage.copies() if "from" not in flags]
    sent = {path.name for path in FOLDER.iterdir() if is_sent(path.name)}
    assert sent == {source for source, _ in sources}
    assert is_sent("config/routes.yaml")
    assert not is_sent("secrets/viewer")


def test_paths_of_the_routes_file_are_those_of_the_containers():
    folder = Path(IMAGE.environment()["ABE_ROUTER_CONFIG"]).parent
    assert ("COPY", f"config {folder}", {}) in IMAGE.steps
    assert ROUTER["volumes"] == [f"./config:{folder}:ro"]
    assert load("kustomization.yaml")["generatorOptions"] == {"disableNameSuffixHash": True}
    for name in DEPLOYMENTS:
        mounts = {mount["name"]: mount for mount in container(name)["volumeMounts"]}
        assert mounts["config"]["mountPath"] == str(folder)
        assert not any("subPath" in mount for mount in mounts.values())
        volumes = {volume["name"]: volume for volume in pod(name)["volumes"]}
        assert volumes.keys() == mounts.keys()
        assert volumes["config"]["configMap"]["name"] == config_map()["metadata"]["name"]
    assert config_map()["data"].keys() == {path.name for path in (FOLDER / "config").iterdir()}


def test_tokens_are_mounted_where_the_routes_file_looks():
    mounted = {Path(secret["target"]): secret["source"] for secret in ROUTER["secrets"]}
    assert mounted.keys() == TOKENS
    assert COMPOSE["secrets"] == {name: {"file": f"secrets/{name}"} for name in mounted.values()}
    for name in DEPLOYMENTS:
        (volume,) = [volume for volume in pod(name)["volumes"] if volume["name"] == "tokens"]
        (mount,) = [mount for mount in container(name)["volumeMounts"] if mount["name"] == "tokens"]
        secret = volume["secret"]
        assert {Path(mount["mountPath"], item["path"]) for item in secret["items"]} == TOKENS
        assert secret["defaultMode"] == 0o440  # root's, and the group of `fsGroup` reads them


def test_secret_has_the_keys_that_manifests_name():
    keys = {path.name for path in TOKENS} | {"backend"}
    for name in DEPLOYMENTS:
        (variable,) = container(name)["env"]
        reference = variable["valueFrom"]["secretKeyRef"]
        assert variable["name"] == "ABE_ROUTER_BACKEND"
        assert reference["name"] == "abe-router"
        assert reference["key"] in keys
    (target,) = MANIFESTS["TriggerAuthentication", "abe-router-api"]["spec"]["secretTargetRef"]
    assert target == {"parameter": "token", "name": "abe-router", "key": "viewer"}
    assert ROUTES["http"]["tokens"]["viewer"]["roles"] == "viewer"


def test_keda_asks_the_service_of_the_api_under_a_name_that_it_accepts():
    spec = MANIFESTS["ScaledObject", "abe-router"]["spec"]
    assert ("Deployment", spec["scaleTargetRef"]["name"]) in MANIFESTS
    (trigger,) = spec["triggers"]
    assert ("TriggerAuthentication", trigger["authenticationRef"]["name"]) in MANIFESTS
    url = urlsplit(trigger["metadata"]["url"])
    service, namespace, _ = str(url.hostname).split(".")
    assert ("Service", service) in MANIFESTS
    assert namespace == load("kustomization.yaml")["namespace"]
    assert url.port == LISTEN
    security = Security(hosts=ROUTES["http"]["hosts"])
    for name in (url.hostname, "router", "abe-router", "127.0.0.1"):
        assert security.check_host({"host": [f"{name}:{LISTEN}"]}) == name


def test_prometheus_and_grafana_of_compose_use_the_shipped_alerts_and_board():
    services = COMPOSE["services"]
    mounted = {
        name: dict(volume.removesuffix(":ro").split(":") for volume in services[name]["volumes"])
        for name in ("prometheus", "grafana")
    }
    for files in mounted.values():
        for source in files:
            assert not source.startswith("./") or (FOLDER / source).is_file()
    configuration = Path(mounted["prometheus"]["./prometheus.yaml"])
    (rules,) = load("prometheus.yaml")["rule_files"]
    assert Path(mounted["prometheus"]["./alerts.yaml"]) == configuration.parent / rules
    board = Path(mounted["grafana"]["./grafana.json"])
    (provider,) = load("grafana/dashboards.yaml")["providers"]
    assert provider["options"] == {"path": str(board.parent)}
    assert services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == str(board)
    (source,) = load("grafana/datasource.yaml")["datasources"]
    url = urlsplit(source["url"])
    assert url.hostname in services
    assert services[str(url.hostname)]["ports"] == [f"127.0.0.1:{url.port}:{url.port}"]
    # The board lets the user choose the source; without a choice it is the default one.
    (variable, *_) = json.loads((FOLDER / "grafana.json").read_text())["templating"]["list"]
    assert (variable["query"], source["type"], source["isDefault"]) == ("prometheus", "prometheus", True)


def test_ports_of_compose_are_open_on_the_loopback_address_alone():
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_unit_template_differs_from_the_unit_in_the_name_of_the_project():
    single, template = (unit.read_text().splitlines()[1:] for unit in UNITS)
    assert [
        line.replace("%i", "shop").replace("abe-router for shop", "abe-router") for line in template
    ] == single


def test_backend_of_compose_is_its_redis():
    url = urlsplit(ROUTER["environment"]["ABE_ROUTER_BACKEND"])
    assert url.hostname in ROUTER["depends_on"]
    assert (
        yaml.safe_load((FOLDER / "config" / "routes.yaml").read_text())["backend"] == "${ABE_ROUTER_BACKEND}"
    )


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_unit_uses_the_notifications_and_does_not_restart_after_faults_of_the_user(unit):
    lines = unit.read_text().splitlines()
    assert {"Type=notify", "NotifyAccess=main", "RestartPreventExitStatus=2 78", "KillMode=mixed"} <= {*lines}
    (seconds,) = [int(line.partition("=")[2]) for line in lines if line.startswith("WatchdogSec=")]
    assert seconds >= 10
