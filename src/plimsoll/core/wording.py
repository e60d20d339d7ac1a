"""Untrusted text made safe to print, and pydantic's errors in words."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError

_JOINERS = "\u200c\u200d"
"""Format characters that scripts and emoji need; the others hide text or turn its direction."""


def printable(text: str, limit: int | None = None, *, keep: str = "", replacement: str = "?") -> str:
    """Return text that no terminal, log or page can mistake for control codes or markup.

    Control and format characters (among them those that turn the writing direction), lone surrogates and line breaks
    become `replacement`, except those in `keep`. Text longer than `limit` is cut and ends in " …".
    """
    short = text if limit is None or len(text) <= limit else text[:limit] + " …"
    if short.isprintable():
        return short
    return "".join(char if _is_printable(char) or char in keep else replacement for char in short)


def _is_printable(char: str) -> bool:
    return char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs"


def explain(
    error: ValidationError,
    whole: str = "the file",
    *,
    values: bool = False,
    locate: Callable[[tuple[str | int, ...]], str] | None = None,
) -> str:
    """Describe in one line what pydantic refuses: the first five mistakes, each with its key (or `whole`).

    `values` also shows the refused values; leave it off for files that may contain a secret. `locate` formats the
    location of a mistake; default `location`.
    """
    items = error.errors(include_url=False)
    where = locate or location
    lines = [f"{where(item['loc']) or whole}: {explain_item(item, values=values)}" for item in items[:5]]
    more = f"; and {len(items) - 5} more" if len(items) > 5 else ""
    return "; ".join(printable(line, 300) for line in lines) + more


def explain_item(item: Any, *, values: bool) -> str:
    """Describe one of pydantic's mistakes: what was found (only with `values`), and what is allowed."""
    kind, context = item["type"], item.get("ctx", {})
    seen = f"found {shown(item['input'])}, " if values else ""
    if kind == "extra_forbidden":
        return "unknown key"
    if kind == "missing":
        return "missing"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return f"{seen}allowed: {context['expected']}"
    text = item["msg"].removeprefix("Input should be ").removeprefix("Input should ")
    return f"{seen}expected {text[:1].lower()}{text[1:]}" if text != item["msg"] else seen + text


def location(parts: Iterable[str | int]) -> str:
    """Format a location in nested data as `input.steps[2].width`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")


def shown(value: Any) -> str:
    """Return a refused value in at most 60 characters."""
    import json

    try:
        text = json.dumps(_beginning(value), default=str)
    except (TypeError, ValueError, RecursionError):  # an integer of 5,000 digits, a table nested too deeply …
        return f"an absurd {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def _beginning(value: Any, depth: int = 3) -> Any:
    """Return as much of a value as 60 characters can show: formatting all of untrusted input may take seconds."""
    if isinstance(value, str):
        return value[:60]
    if isinstance(value, (list, tuple)):
        return [_beginning(item, depth - 1) for item in value[:20]] if depth else ["…"]
    if isinstance(value, dict):
        return {key: _beginning(value[key], depth - 1) for key in islice(value, 20)} if depth else {"…": "…"}
    return value


def unknown(noun: str, value: str, choices: Iterable[str]) -> str:
    """Return the message for an unknown name: "unknown calibrator 'magic'; choose from minmax, entropy"."""
    return f"unknown {noun} '{printable(value, 60)}'; choose from {', '.join(choices)}"
