"""The documents say what the code does: blocks marked to be run are run, and no key or command is missing."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import plimsoll
from plimsoll.spec import files

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"<!-- run -->\n```python\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)[^)]*\)")


@pytest.mark.usefixtures("nsfw_model_path")
@pytest.mark.parametrize(
    ("page", "code"), [(page.name, code) for page in PAGES for code in BLOCK.findall(page.read_text())]
)
def test_a_block_that_is_marked_runs(page: str, code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{page}: {done.stderr}"
    assert done.stdout


def test_the_readme_has_a_block_that_runs() -> None:
    assert BLOCK.search((ROOT / "README.md").read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert not missing


def test_every_key_of_a_spec_is_documented() -> None:
    text = (ROOT / "docs" / "spec.md").read_text()
    for name, part in files.schema()["$defs"].items():
        for key, value in part["properties"].items():
            assert f"`{key}`" in text or f"`{key} = " in text, f"{name}.{key}: run `make docs`"
            assert value.get("description", "") in text, f"{name}.{key}: run `make docs`"


def test_every_command_is_documented() -> None:
    from plimsoll.cli import app

    text = (ROOT / "docs" / "cli.md").read_text()
    commands = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    assert commands
    for name in commands + [str(group.name) for group in app.registered_groups]:
        assert f"## `plimsoll {name}`" in text, "run `make docs`"


def test_the_version_stands_alike_in_the_package_and_its_metadata() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == plimsoll.__version__
    assert f"## [{plimsoll.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
