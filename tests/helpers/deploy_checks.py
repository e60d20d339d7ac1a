"""Reads what lies in `deploy/`, and checks it with the programs of the test toolchain `deploy`."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.toolchain_required import require
from plimsoll.system import toolchains
from plimsoll.system.toolchains.environment import python_of

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
TOOLCHAINS = Path(__file__).resolve().parents[1] / "toolchains"
NAME = "deploy"
_PROGRAMS = Path(__file__).resolve().parents[1] / "programs"


def tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program of the toolchain (`python` too); skips where that isn't made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLIMSOLL_TOOLCHAINS", str(TOOLCHAINS))
        require(NAME)
        folder = python_of(toolchains.make(NAME)).parent
    return subprocess.run(
        [folder / name, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120, cwd=ROOT
    )


def documents(file: Path) -> list[dict[str, Any]]:
    """Return the documents of a YAML file."""
    done = tool("python", "-B", _PROGRAMS / "yaml_documents.py", file)
    assert done.returncode == 0, done.stderr[-2000:]
    loaded: list[dict[str, Any]] = json.loads(done.stdout)[0]
    return loaded


def selectors(expressions: list[str], work: Path) -> list[list[tuple[str, list[str]]]]:
    """Parse PromQL; returns for each expression the series that it reads, with the labels that it names."""
    listed = work / "expressions.json"
    listed.write_text(json.dumps([expression.replace("$__rate_interval", "5m") for expression in expressions]))
    done = tool("python", "-B", _PROGRAMS / "promql_selectors.py", listed)
    assert done.returncode == 0, done.stderr[-2000:]
    selected: list[list[tuple[str, list[str]]]] = json.loads(done.stdout)
    return selected


def dashboard() -> dict[str, Any]:
    """Return the Grafana dashboard."""
    board: dict[str, Any] = json.loads(
        (DEPLOY / "compose" / "grafana" / "dashboards" / "plimsoll.json").read_text(encoding="utf-8")
    )
    return board


def expressions() -> Iterator[tuple[str, str]]:
    """Yield every PromQL expression of the dashboard, with its panel's title."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def seconds(text: str) -> float:
    """Read a duration as Compose writes it."""
    match = re.fullmatch(r"(\d+)(ms|s|m)", text)
    assert match, text
    return int(match[1]) * {"ms": 0.001, "s": 1, "m": 60}[match[2]]
