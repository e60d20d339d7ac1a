"""Messages advise what exists: every `plimsoll …` command in the package's texts is one, with the options that it
has, and so is every option that stands in a text alone."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from plimsoll.cli import app

SOURCE = Path(__file__).resolve().parents[2] / "src" / "plimsoll"
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")
OTHERS = ("export/triton/readme.py",)
"""Files whose texts give commands of other programs."""


def texts() -> Iterator[tuple[str, str]]:
    """Yield every text in the package that is no docstring, with its file: the parts of f-strings as one."""
    for file in sorted(SOURCE.rglob("*.py")):
        name = file.relative_to(SOURCE).as_posix()
        if "toolchain/" in name or name in OTHERS or name.endswith("_pb2.py"):
            continue
        tree = ast.parse(file.read_text("utf-8"))
        skipped = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        skipped |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "X" for part in node.values]
                yield name, "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
                yield name, node.value


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], set[str]]]:
    """Yield every command by its words, with its options."""
    yield path, {option for parameter in group.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(app)))
GROUPS = {path[:1] for path in COMMANDS if len(path) == 2}
OPTIONS = set().union(*COMMANDS.values()) | {"--help"}


def problems(text: str) -> Iterator[str]:
    """Yield what a text advises and Plimsoll hasn't."""
    for written in re.findall(r"`plimsoll ([a-z][^`]*)`", text):
        words = shlex.split(written.replace("…", ""), posix=False)
        path = next((tuple(words[:count]) for count in (2, 1) if tuple(words[:count]) in COMMANDS), None)
        if path is None or (path in GROUPS and words[1:] and words[1].islower()):
            yield f"plimsoll {written}: there is no such command"
            continue
        known = COMMANDS[path] | COMMANDS[()] | {"--help"}
        yield from (
            f"plimsoll {written}: it has no {option}" for option in OPTION.findall(written) if option not in known
        )
    if " " in text:  # Else it is an argument of another program.
        yield from (f"{option}: no command has it" for option in OPTION.findall(text) if option not in OPTIONS)


def test_messages_advise_what_exists() -> None:
    assert {f"{name}: {problem}" for name, text in texts() for problem in problems(text)} == set()


@pytest.mark.parametrize(
    "text", ["Try `plimsoll mend`.", "Run `plimsoll ship --magic`.", "Give --no-such-option.", "`plimsoll keys polish`"]
)
def test_bad_advice_is_noticed(text: str) -> None:
    assert list(problems(text))


def test_good_advice_passes() -> None:
    assert not list(problems("Give --images; `plimsoll convert MODEL --target X` takes it, `plimsoll zoo list` lists."))
