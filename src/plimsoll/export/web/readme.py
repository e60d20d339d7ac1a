"""What a web package says about itself in README.md and LICENCES.txt."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from plimsoll.core.target import Target
from plimsoll.spec import Spec


def text(spec: Spec, target: Target, facts: dict[str, Any]) -> str:
    """Return README.md."""
    size = (facts["model"]["bytes"] + facts["runtime"]["binary"]["bytes"]) / 1e6
    template = files(__package__).joinpath("README.md.in").read_text(encoding="utf-8")
    values = {
        "name": spec.name,
        "description": spec.description,
        "target": str(target),
        "plimsoll": facts["plimsoll"],
        "runtime": facts["runtime"]["version"],
        "megabytes": f"{size:.0f}",
    }
    for key, value in values.items():
        template = template.replace(f"{{{{{key}}}}}", value)
    return template


def licences(origin: dict[str, Any]) -> str:
    """Return LICENCES.txt: whose the parts of the package are."""
    own = files(__package__).joinpath("LICENCES.txt.in").read_text(encoding="utf-8")
    if not origin:
        return f"{own}\nThe network (model.onnx): its licence was not stated when this package was made.\n"
    lines = [
        f"{key.replace('_', ' ')}: {', '.join(value) if isinstance(value, (list, tuple)) else value}"
        for key, value in origin.items()
        if _is_plain(value)
    ]
    return f"{own}\nThe network (model.onnx)\n------------------------\n" + "\n".join(lines) + "\n"


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, int)) or (
        isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)
    )
