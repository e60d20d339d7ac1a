"""Patterns mean the whole text: a newline at its end is part of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

import plimsoll
from plimsoll.serve.access.keys import TOKEN, Key, Rate
from plimsoll.serve.compat.settings import PhotoPrismSettings, PictrsSettings
from plimsoll.serve.http.urls import UrlSettings
from plimsoll.serve.request import request_id
from plimsoll.serve.settings import CorsSettings
from plimsoll.spec import Name

MATCHING = frozenset({"compile", "match", "search", "split", "sub", "findall", "finditer"})
ENDS = ("\n", "\r", "\r\n", "\0", "\u2028", "\x85", "\t", "\x0b")
KEY = {"name": "one", "id": "00000000", "sha256": "a" * 64}


def half_open(source: str) -> Iterator[str]:
    """Yield patterns of Python's `re` that end in `$` without MULTILINE: they leave out a newline at the end of what
    they read."""
    for call in ast.walk(ast.parse(source)):
        if (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Attribute)
            and call.func.attr in MATCHING
            and ast.unparse(call.func.value) == "re"
        ):
            pattern = ast.unparse(call.args[0]) if call.args else ""
            flags = " ".join(map(ast.unparse, [*call.args[1:], *(keyword.value for keyword in call.keywords)]))
            if (
                pattern.rstrip("\"')").endswith("$")
                and not pattern.rstrip("\"')").endswith("\\$")
                and "MULTILINE" not in flags
            ):
                yield pattern


def test_no_pattern_leaves_out_a_newline_at_the_end() -> None:
    result = {
        file.name: list(half_open(file.read_text("utf-8"))) for file in Path(plimsoll.__file__).parent.rglob("*.py")
    }
    assert {name: patterns for name, patterns in result.items() if patterns} == {}


@pytest.mark.parametrize(
    "planted", ["re.compile(r'a$')", "re.match('^a$', x)", "re.search(rf'{a}$', x)", "re.compile(b'(a|b$)', re.ASCII)"]
)
def test_such_a_pattern_is_found(planted: str) -> None:
    assert list(half_open(planted))
    assert not list(half_open(planted.replace("$", "\\\\Z")))


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    ("model", "fields", "name"),
    [
        (Key, KEY, "name"),
        (Key, KEY, "id"),
        (Key, KEY, "sha256"),
        (CorsSettings, {"origins": ("https://app.example.org",)}, "origins"),
        (UrlSettings, {"hosts": ("media.example.org",)}, "hosts"),
        (UrlSettings, {"hosts": ("*.example.org:8443",)}, "hosts"),
        (PhotoPrismSettings, {"prefixes": ("/v1/vision",)}, "prefixes"),
        (PictrsSettings, {"path": "/v1/validate"}, "path"),
    ],
)
def test_a_setting_takes_nothing_behind_its_end(
    model: type[BaseModel], fields: dict[str, Any], name: str, end: str
) -> None:
    model.model_validate(fields)
    value = fields[name]
    with pytest.raises(ValidationError):
        model.model_validate(fields | {name: (value[0] + end,) if isinstance(value, tuple) else value + end})


@pytest.mark.parametrize("end", ENDS)
def test_neither_do_names_keys_and_ids(end: str) -> None:
    token = b"plm_00000000_" + b"A" * 43
    assert TOKEN.fullmatch(token)
    assert not TOKEN.fullmatch(token + end.encode())
    assert request_id([(b"x-request-id", b"a1")]) == "a1"
    assert request_id([(b"x-request-id", b"a1" + end.encode())]) != "a1" + end
    with pytest.raises(ValidationError):
        TypeAdapter(Name).validate_python("name" + end)
    if not end.isspace():
        with pytest.raises(ValueError, match="is not a rate"):
            Rate.parse("10/s" + end)
