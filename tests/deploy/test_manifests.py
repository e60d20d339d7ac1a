"""Dockerfile, Compose and Kubernetes files fit the service that they run: its options, endpoints, extras and times. No
Docker, no cluster."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from helpers.deploy_checks import DEPLOY, ROOT, documents, seconds, tool
from plimsoll.serve.settings import Settings, read

KUBERNETES = DEPLOY / "kubernetes"
OVERLAYS = ("queue-time", "cpu")
VERSIONS = ("1.31", "1.34")
SPARE_S = 5.0
"""Between the end of the drain and the kill."""

pytestmark = pytest.mark.toolchain


def instructions(file: Path) -> list[tuple[str, str]]:
    """Return a Dockerfile's instructions and what follows them, lines joined."""
    text = re.sub(
        r"\\\n\s*", "", "".join(line for line in file.read_text().splitlines(keepends=True) if not line.startswith("#"))
    )
    return [
        (name, rest.strip()) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())
    ]


def value_of(file: Path, name: str) -> str:
    return [rest for instruction, rest in instructions(file) if instruction == name][-1]


def rendered(overlay: str, work: Path) -> list[dict[str, Any]]:
    """Return what an overlay becomes: `kubectl kustomize` needs no cluster."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        [kubectl, "kustomize", str(KUBERNETES / "overlays" / overlay)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    file = work / f"{overlay}.yaml"
    file.write_text(done.stdout)
    return documents(file)


def only(documents_: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    matching = [document for document in documents_ if document["kind"] == kind]
    assert len(matching) == 1, kind
    return matching[0]


def options() -> set[str]:
    """Return the options of `plimsoll serve`."""
    import typer

    from plimsoll.cli import app

    command = typer.main.get_command(app)
    served = command.commands["serve"]  # type: ignore[attr-defined]  # it is a group
    return {name for parameter in served.params for name in parameter.opts}


def endpoints() -> set[str]:
    from plimsoll.serve.http import operations

    return {row.path for row in operations.endpoints(None)}  # type: ignore[arg-type]  # asked for nothing but its paths


@pytest.mark.parametrize("name", ["docker/Dockerfile", "docker/model.Dockerfile", "triton/Dockerfile"])
def test_the_dockerfiles_are_linted(name: str) -> None:
    done = tool("hadolint", DEPLOY / name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_image_is_built_from_is_there_and_not_ignored() -> None:
    ignored = (DEPLOY / "docker" / "Dockerfile.dockerignore").read_text().split()
    assert ignored[0] == "*"
    for rest in (
        rest for name, rest in instructions(DEPLOY / "docker" / "Dockerfile") if name == "COPY" and "--from" not in rest
    ):
        for source in shlex.split(rest)[:-1]:
            assert (ROOT / source).exists(), source
            assert any(
                fnmatch(source.removeprefix("./"), pattern.removeprefix("!"))
                for pattern in ignored
                if pattern.startswith("!")
            ), source


def test_the_image_has_all_that_building_the_package_reads() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    copied = {
        source
        for name, rest in instructions(DEPLOY / "docker" / "Dockerfile")
        if name == "COPY"
        for source in shlex.split(rest)[:-1]
    }
    assert {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"} <= copied
    arguments = dict(
        rest.split("=", 1) for name, rest in instructions(DEPLOY / "docker" / "Dockerfile") if name == "ARG"
    )
    assert set(arguments["EXTRAS"].split(",")) <= project["project"]["optional-dependencies"].keys()
    assert arguments["VERSION"] == project["project"]["version"]


def test_the_image_is_not_root_and_is_told_to_stop_as_it_understands() -> None:
    file = DEPLOY / "docker" / "Dockerfile"
    user = value_of(file, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "Kubernetes knows by a number alone that it isn't root"
    assert value_of(file, "STOPSIGNAL") == "SIGTERM"
    entry = json.loads(value_of(file, "ENTRYPOINT"))
    assert entry[:4] == ["tini", "--", "plimsoll", "serve"], "an init hands signals on and takes care of orphans"
    assert {word for word in entry[2:] if word.startswith("--")} <= options()
    installed = re.findall(r"(?:apt-get|apt) install ([^&|;]*)", " ; ".join(rest for _, rest in instructions(file)))
    assert " ".join(installed).split() == ["--yes", "--no-install-recommends", "tini"], "no compiler"


def test_the_health_check_asks_what_is_served() -> None:
    check = value_of(DEPLOY / "docker" / "Dockerfile", "HEALTHCHECK")
    command = json.loads(check[check.index("CMD ") + 4 :])
    match = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)", command[-1])
    assert match
    assert match[2] in endpoints()
    assert match[1] in value_of(DEPLOY / "docker" / "Dockerfile", "EXPOSE").split()
    compile(command[-1], "health check", "exec")


def test_compose_keeps_its_schema() -> None:
    done = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose" / "compose.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_waits_for_the_drain_and_locks_the_service_in() -> None:
    service = documents(DEPLOY / "compose" / "compose.yaml")[0]["services"]["plimsoll"]
    settings = Settings()
    assert seconds(service["stop_grace_period"]) >= settings.grace + settings.drain_timeout + SPARE_S
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert any(mount.startswith("/tmp") for mount in service["tmpfs"])
    assert all(volume.startswith("./") or "$" in volume or ":" in volume for volume in service["volumes"])
    assert all(port.startswith("127.0.0.1:") for port in service["ports"]), (
        "nothing listens on other interfaces unasked"
    )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_takes_the_manifests(overlay: str, tmp_path: Path) -> None:
    rendered(overlay, tmp_path)
    for version in VERSIONS:
        done = tool("kubernetes-validate", "--strict", "-k", version, tmp_path / f"{overlay}.yaml")
        said = done.stdout + done.stderr
        # Its schemas don't have the ServiceMonitor, which the Prometheus operator defines.
        wrong = [
            line
            for line in said.splitlines()
            if "passed" not in line and "ServiceMonitor" not in line and "servicemonitor" not in line
        ]
        assert not wrong, "\n".join(wrong)
        assert said.count("passed") >= 6


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_restricted(overlay: str, tmp_path: Path) -> None:
    """The Pod Security Standard `restricted`, and a root file system that can't be written."""
    pod = only(rendered(overlay, tmp_path), "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    assert str(pod["securityContext"]["runAsUser"]) == value_of(DEPLOY / "docker" / "Dockerfile", "USER").split(":")[0]
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"/tmp"} <= {mount["mountPath"] for mount in container["volumeMounts"]}
    assert container["resources"]["limits"] == container["resources"]["requests"]


def test_the_pod_outlives_its_drain_and_its_settings_are_read(tmp_path: Path) -> None:
    manifests = rendered("queue-time", tmp_path)
    pod = only(manifests, "Deployment")["spec"]["template"]["spec"]
    text = only(manifests, "ConfigMap")["data"]["plimsoll.toml"]
    (tmp_path / "plimsoll.toml").write_text(text)
    settings = read(tmp_path / "plimsoll.toml", {})
    assert settings.grace >= 5
    assert pod["terminationGracePeriodSeconds"] >= settings.grace + settings.drain_timeout + SPARE_S
    arguments = pod["containers"][0]["args"]
    mounted = next(mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "settings")
    assert arguments[arguments.index("--config") + 1] == f"{mounted}/plimsoll.toml"


def test_probes_ask_what_is_served_and_liveness_is_not_readiness(tmp_path: Path) -> None:
    containers = [*only(rendered("cpu", tmp_path), "Deployment")["spec"]["template"]["spec"]["containers"]]
    containers += documents(DEPLOY / "kserve" / "runtime.yaml")[0]["spec"]["containers"]
    for container in containers:
        probes = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
        assert set(probes.values()) <= endpoints()
        assert probes == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/healthz"}


def test_options_in_the_manifests_are_options_of_the_command(tmp_path: Path) -> None:
    used = [only(rendered("cpu", tmp_path), "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]]
    used += [container["args"] for container in documents(DEPLOY / "kserve" / "runtime.yaml")[0]["spec"]["containers"]]
    for arguments in used:
        assert {word for word in arguments if word.startswith("--")} <= options()


def test_selectors_meet(tmp_path: Path) -> None:
    """A label that is written otherwise in one place leaves a Service without pods, in silence."""
    manifests = rendered("queue-time", tmp_path)
    labels = only(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    for key in (
        only(manifests, "Deployment")["spec"]["selector"]["matchLabels"],
        only(manifests, "Service")["spec"]["selector"],
        only(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        only(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ):  # fmt: skip
        assert key.items() <= labels.items()
    monitor = only(manifests, "ServiceMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= only(manifests, "Service")["metadata"]["labels"].items()
    assert {endpoint["port"] for endpoint in monitor["endpoints"]} <= {
        port["name"] for port in only(manifests, "Service")["spec"]["ports"]
    }


def test_the_autoscaler_reads_the_metric_that_the_adapter_makes(tmp_path: Path) -> None:
    exported = documents(KUBERNETES / "prometheus-adapter" / "values.yaml")[0]["rules"]["custom"][0]["name"]["as"]
    scaler = only(rendered("queue-time", tmp_path), "HorizontalPodAutoscaler")["spec"]
    assert [metric["pods"]["metric"]["name"] for metric in scaler["metrics"]] == [exported]
    assert scaler["scaleTargetRef"]["name"] == only(rendered("queue-time", tmp_path), "Deployment")["metadata"]["name"]
    assert "replicas" not in only(rendered("queue-time", tmp_path), "Deployment")["spec"]


def test_kserve_offers_both_protocols_under_the_services_name() -> None:
    (runtime,) = documents(DEPLOY / "kserve" / "runtime.yaml")
    assert runtime["spec"]["protocolVersions"] == ["v2", "grpc-v2"]
    (container,) = runtime["spec"]["containers"]
    assert container["name"] == "kserve-container"
    assert "{{.Name}}=/mnt/models" in container["args"]
    formats = {entry["name"] for entry in runtime["spec"]["supportedModelFormats"]}
    for service in documents(DEPLOY / "kserve" / "service.yaml"):
        model = service["spec"]["predictor"]["model"]
        assert model["modelFormat"]["name"] in formats
        assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
        assert model["runtime"] == runtime["metadata"]["name"]
