"""The dashboard, the alerts and the autoscaler's rule read what the service really exports."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.deploy_checks import DEPLOY, dashboard, documents, expressions, selectors

NAMES = re.compile(r"\bplimsoll_[a-z_0-9]+\b")
SCRAPED = {"instance", "job", "namespace", "pod"}
"""Labels that Prometheus adds to what it scrapes."""
MONITORING = (
    "compose/grafana/dashboards/plimsoll.json", "compose/prometheus/plimsoll.rules.yml",
    "kubernetes/prometheus-adapter/values.yaml",
)  # fmt: skip

Series = dict[str, set[str]]


@pytest.fixture(scope="module")
def exported(nsfw_model_path: Path, example_photos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Series:
    """What a running service exports: the names of its series and their labels, after it answered a photo and refused
    nonsense."""
    del nsfw_model_path
    pytest.importorskip("prometheus_client")
    with _serving(tmp_path_factory.mktemp("serve")) as url:
        for data in (example_photos[0].read_bytes(), b"no picture"):
            with contextlib.suppress(urllib.error.HTTPError):
                _post(f"{url}/v1/predict", data)
        with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
            return _series(answer.read().decode())


@contextlib.contextmanager
def _serving(work: Path) -> Iterator[str]:
    command = [
        sys.executable,
        "-m",
        "plimsoll",
        "serve",
        "open_nsfw",
        "--port",
        "0",
        "--workers",
        "1",
        "--threads",
        "1",
        "--grace",
        "0",
    ]
    log = work / "log"
    with (
        log.open("w") as stream,
        subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL) as process,
    ):
        try:
            yield _address(process, log)
        finally:
            process.terminate()
            process.wait(60)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    for _ in range(600):
        if match := re.search(r"https?://[\d.]+:\d+", log.read_text()):
            return match[0]
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
    raise AssertionError(log.read_text())


def _post(url: str, data: bytes) -> None:
    mark = uuid.uuid4().hex
    body = (
        f'--{mark}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'.encode()
        + data
        + f"\r\n--{mark}--\r\n".encode()
    )
    request = urllib.request.Request(url, body, {"Content-Type": f"multipart/form-data; boundary={mark}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()


def _series(page: str) -> Series:
    """Read Prometheus' text; a family that has no series yet counts with its name alone."""
    result: Series = {}
    for line in page.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            for suffix in ("_bucket", "_sum", "_count") if kind == "histogram" else ("",):
                result.setdefault(name + suffix, set())
        elif line and not line.startswith("#"):
            name, _, rest = line.partition("{")
            result.setdefault(name.split()[0], set()).update(re.findall(r'(\w+)="', rest))
    return result


@pytest.mark.parametrize("file", MONITORING)
def test_only_what_is_exported_is_read(file: str, exported: Series) -> None:
    read = set(NAMES.findall((DEPLOY / file).read_text(encoding="utf-8"))) - {"plimsoll_queue_seconds_p95"}
    assert read
    assert read <= exported.keys()


def test_every_metric_is_shown(exported: Series) -> None:
    """What the service counts and nobody sees might as well not be counted."""
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for _, text in expressions() for name in NAMES.findall(text)}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported if name.startswith("plimsoll_")} == shown


@pytest.mark.toolchain
def test_every_expression_parses_and_names_labels_that_there_are(exported: Series, tmp_path: Path) -> None:
    rules = [
        rule
        for group in documents(DEPLOY / "compose/prometheus/plimsoll.rules.yml")[0]["groups"]
        for rule in group["rules"]
    ]
    adapter = documents(DEPLOY / "kubernetes/prometheus-adapter/values.yaml")[0]["rules"]["custom"][0]
    query = adapter["metricsQuery"]
    for template, value in (
        ("<<.Series>>", "plimsoll_queue_seconds_bucket"),
        ("<<.LabelMatchers>>", 'namespace="a",pod=~"b|c"'),
        ("<<.GroupBy>>", "pod"),
    ):
        assert template in query
        query = query.replace(template, value)
    texts = [*(text for _, text in expressions()), *(rule["expr"] for rule in rules), query, adapter["seriesQuery"]]
    assert len(texts) > 25
    for text, read in zip(texts, selectors(texts, tmp_path), strict=True):
        assert read or text == "vector(0)", text
        for name, labels in read:
            known = exported.get(name, set())
            assert not known or set(labels) <= known | SCRAPED | {"le"}, f"{text}: {name} has {known}"


def test_every_panel_says_what_it_shows_and_has_its_place() -> None:
    board = dashboard()
    cells: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not own & cells, f"{panel['title']} lies over another panel"
        assert at["x"] + at["w"] <= 24
        cells |= own
        assert panel["title"]
        assert panel["type"] == "row" or all(target["refId"] and target["expr"] for target in panel["targets"])
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@pytest.mark.toolchain
def test_the_dashboard_is_where_grafana_looks() -> None:
    compose = documents(DEPLOY / "compose/compose.yaml")[0]
    provider = documents(DEPLOY / "compose/grafana/provisioning/dashboards/plimsoll.yaml")[0]["providers"][0]
    places = dict(volume.removesuffix(":ro").split(":") for volume in compose["services"]["grafana"]["volumes"])
    inside = {aim: DEPLOY / "compose" / source for source, aim in places.items() if source.startswith("./")}
    assert (inside[provider["options"]["path"]] / "plimsoll.json").is_file()
    home = compose["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/plimsoll.json"
    assert (inside["/etc/grafana/provisioning"] / "datasources" / "prometheus.yaml").is_file()


def test_prometheus_takes_its_files_and_the_alerts_fire() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian has it in the package prometheus)")
    folder = DEPLOY / "compose" / "prometheus"
    for command in (
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "plimsoll.rules.yml"],
        ["test", "rules", "plimsoll.rules.test.yml"],
    ):
        done = subprocess.run([promtool, *command], cwd=folder, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried() -> None:
    folder = DEPLOY / "compose" / "prometheus"
    alerts = re.findall(r"- alert: (\w+)", (folder / "plimsoll.rules.yml").read_text())
    tried = set(re.findall(r"alertname: (\w+)", (folder / "plimsoll.rules.test.yml").read_text()))
    assert len(alerts) == 6
    assert set(alerts) - tried <= {"PlimsollDown", "PlimsollOverloaded"}
