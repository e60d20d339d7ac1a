"""Markup that can't be broken out of: every plain string that is put into it is escaped.

A report holds paths, reasons and labels that anybody may have chosen. Only a `Markup` is taken as it stands, and only
this file and the page's own style and script make one from a string.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

from plimsoll.core.wording import printable

Attribute = str | float | bool | None

_VOID = frozenset({"br", "img", "meta", "link", "input", "hr", "col"})


class Markup(str):
    """HTML or SVG source that is safe as it stands."""

    __slots__ = ()


def escape(text: str) -> Markup:
    """Return the text as markup; a `Markup` is returned as it is."""
    return (
        text
        if isinstance(text, Markup)
        else Markup(html.escape(printable(text, keep="\n\t", replacement="\ufffd"), quote=True))
    )


def join(parts: Iterable[str], separator: str = "") -> Markup:
    """Return the parts one after the other, those that are plain text escaped."""
    return Markup(str(escape(separator)).join(escape(part) for part in parts))


def tag(name: str, /, *children: str, **attributes: Attribute) -> Markup:
    """Return one element.

    Attributes are keywords: a trailing underscore is dropped (`class_`), another one is a dash (`stroke_width`). None
    and False leave the attribute out, True writes it without a value. Numbers are rounded to hundredths: a page's
    pixels.
    """
    head = name + "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{head}>")
    return Markup(f"<{head}>{join(children)}</{name}>")


def coordinate(value: float) -> str:
    """Return a number as SVG wants it: at most two decimals, no exponent, no minus zero."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _attribute(key: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = {"viewBox_": "viewBox", "preserveAspectRatio_": "preserveAspectRatio"}.get(
        key, key.rstrip("_").replace("_", "-")
    )
    if value is True:
        return f" {name}"
    return f' {name}="{escape(value) if isinstance(value, str) else coordinate(value)}"'
