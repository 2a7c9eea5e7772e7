"""The ways to start a server that are shipped: what they say fits the server."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from tests.architecture.imports import ROOT
from tgi_cli.runtime.config.env import merge
from tgi_cli.runtime.config.probe import read_options
from tgi_cli.runtime.config.resolved import RouterConfig
from tgi_cli.runtime.router.route_table import routes_of

UNITS = ROOT / "deploy/systemd"
PATHS = {route.path for route in routes_of(RouterConfig(model_id="x"))}


def read_yaml(name: str) -> list[Any]:
    return list(yaml.safe_load_all((ROOT / name).read_text(encoding="utf-8")))


def asked_by_probe(command: list[str], port: str) -> tuple[str, int]:
    """Return the level that a health check asks for, and the port, where PORT is `port`."""
    program, subcommand, *arguments = command
    assert (program, subcommand) == ("tgi", "health")
    options = read_options(arguments, {"PORT": port})
    assert options is not None
    return options.level, options.target.port


def test_a_compose_service_keeps_its_models_and_its_requests() -> None:
    (compose,) = read_yaml("compose.yaml")
    service = compose["services"]["tgi"]

    assert service["volumes"] == ["models:/data"]
    assert service["ports"] == ["${PORT:-8080}:80"]
    assert int(service["stop_grace_period"].removesuffix("s")) > 90
    assert service["restart"] == "unless-stopped"
    assert asked_by_probe(service["healthcheck"]["test"][1:], "80") == ("live", 80)


def test_the_files_that_monitoring_mounts_are_there() -> None:
    (compose,) = read_yaml("deploy/compose.monitoring.yaml")

    for service in compose["services"].values():
        for volume in service["volumes"]:
            if volume.startswith("./"):
                assert (ROOT / volume.split(":")[0]).exists(), volume
        assert ":" in service["image"], "an image without a version"
    (scraped,) = read_yaml("deploy/prometheus/prometheus.yml")
    (target,) = scraped["scrape_configs"][0]["static_configs"]
    assert target["labels"] == {"container": "tgi"}  # what the dashboard filters by


def test_probes_of_a_cluster_ask_routes_that_exist() -> None:
    deployment, service = read_yaml("deploy/kubernetes/tgi.yaml")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    paths = {
        kind: container[f"{kind}Probe"]["httpGet"]["path"]
        for kind in ("startup", "readiness", "liveness")
    }
    assert paths == {
        "startup": "/health/ready",
        "readiness": "/health/ready",
        "liveness": "/health/live",
    }
    assert set(paths.values()) <= PATHS
    assert pod["terminationGracePeriodSeconds"] > 90
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]


def lines_of_unit(name: str) -> dict[str, str]:
    lines = (UNITS / name).read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))


def test_a_unit_waits_until_the_model_answers() -> None:
    lines = lines_of_unit("tgi.service")

    argv = lines["ExecStartPost"].split()[2:]
    options = read_options([word.replace("$MAINPID", "7") for word in argv], {})
    assert options is not None
    assert options.wait_s is not None
    assert lines["TimeoutStartSec"] == "31min"
    assert options.wait_s < 31 * 60
    assert int(lines["TimeoutStopSec"]) > 90


def test_a_socket_hands_its_connections_to_where_the_unit_listens() -> None:
    socket, proxy, unit = map(lines_of_unit, ("tgi.socket", "tgi-proxy.service", "tgi.service"))

    target = proxy["ExecStart"].split()[-1]
    hostname = re.search(r"\bHOSTNAME=(\S+)", unit["Environment"])
    assert hostname is not None
    assert target == f"{hostname[1]}:{merge({}, {})[0].port}"
    assert socket["Service"] == "tgi-proxy.service"
    for key in ("Requires", "After"):
        assert "tgi.service" in proxy[key].split()
    assert proxy["TimeoutStopSec"] == unit["TimeoutStopSec"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="Debian's package systemd")
def test_systemd_reads_the_units() -> None:
    checked = subprocess.run(
        ["systemd-analyze", "verify", *sorted(UNITS.iterdir())],
        capture_output=True,
        text=True,
        check=False,
    )

    complaints = [line for line in checked.stderr.splitlines() if "is not executable" not in line]
    assert complaints == []
