"""Write what is generated in docs/: spec.md from the Spec's classes, cli.md from the command line, and in
architecture.md the drawing of the layers.

    python tools/pages.py [--check]

`--check` writes nothing and fails where a page is not what it should be.
"""

from __future__ import annotations

import ast
import html
import subprocess
import sys
from pathlib import Path
from typing import Any

import structure

from plimsoll.spec import files
from plimsoll.zoo import card

DOCS = Path(__file__).resolve().parent.parent / "docs"

INTRODUCTION = """# The Spec

A Spec is the contract of a model: from the bytes of a picture to the meaning of the answer. It is a TOML file.
`plimsoll spec check FILE` lists every mistake in it, `plimsoll spec check FILE --model MODEL` runs a network behind it
on two sample pictures, alone, twice and together, and says what doesn't fit, and `plimsoll spec schema` prints its JSON
Schema for editors.

This page is generated from the code by `make docs`.

## An example

This is open_nsfw's, as `plimsoll spec show open_nsfw` prints it (keys at their default are left out):

```toml
{example}```

## Top level

{top}

## `input`

{input}

### A further input: `[[input.extra]]`

{extra}

Further inputs of an ONNX network become constants in it where they are the same for every picture, so that every
runtime can take it. A picture's own size is never needed: Plimsoll maps positions back to the picture itself, so a
network gets the size of its input, and a scale of 1 (the table in [tasks.md](tasks.md) shows which). An input that
takes the same picture in another size or form has `source = "picture"` and steps of its own, `[[input.extra.steps]]`.
The tensors of such a picture travel as one, float32 `[N, K]`, the first input's before the others', and the network
takes them apart: so does every runtime, quantizer and client of a service that sends tensors. Browsers and
folding don't do that.

### The steps' order

The steps run in order. The first, and only the first, is `decode`. `resize`, `jpeg` and `crop` work on height × width ×
channels, so they come before `layout`; `resize` and `jpeg` need 8-bit values, so they come before `scale`, `mean` and
`std`.
"""

STEPS = ["Decode", "Resize", "Jpeg", "Crop", "Channels", "Scale", "Mean", "Std", "Layout", "Cast"]
COMMON = ("batch_axis",)
TASKS = ["Classify", "Detect", "Landmarks", "Segment", "Text", "Tensors"]


def spec_page() -> str:
    """Return docs/spec.md."""
    schema = files.schema()
    definitions = schema["$defs"]
    text = INTRODUCTION.format(
        example=files.dumps(card("open_nsfw").spec),
        top=table(schema),
        input=table(definitions["Input"]),
        extra=table(definitions["Extra"]),
    )
    text += "\n## The steps\n"
    for name in STEPS:
        text += section(definitions[name], "step")
    text += (
        "\n## `output`: the tasks\n\n[tasks.md](tasks.md) says how outputs are read, and what the answers look like.\n"
        "\nEvery task has this key:\n\n" + table(_common(definitions)) + "\n"
    )
    for name in TASKS:
        text += section(definitions[name], "task")
    return text + "\n### A band\n\n" + table(definitions["Band"]) + "\n"


def _common(definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the keys that every task has."""
    return {"properties": {key: definitions["Tensors"]["properties"][key] for key in COMMON}}


def section(definition: dict[str, Any], tag: str) -> str:
    """Return the part about one step or task."""
    title = definition["properties"][tag]["const"]
    return f'\n### `{tag} = "{title}"`\n\n{" ".join(definition["description"].split())}\n\n{table(definition, tag)}\n'


def table(definition: dict[str, Any], leave_out: str = "") -> str:
    """Return a Markdown table of the keys."""
    needed = set(definition.get("required", ()))
    rows = ["| key | value | default | |", "| --- | --- | --- | --- |"]
    for key, value in definition["properties"].items():
        if key == leave_out or (leave_out and key in COMMON):
            continue
        default = "required" if key in needed else shown(value.get("default"))
        rows.append(f"| `{key}` | {kind(value)} | {default} | {value.get('description', '')} |")
    return "\n".join(rows) if len(rows) > 2 else "It has no other keys."


def shown(default: object) -> str:
    """Return a default as TOML writes it."""
    if default is None or default in ("", [], ()):
        return "–"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, (list, tuple)):
        return "`[" + ", ".join(f'"{item}"' if isinstance(item, str) else f"{item:g}" for item in default) + "]`"
    return f'`"{default}"`' if isinstance(default, str) else f"`{default:g}`"


def kind(value: dict[str, Any]) -> str:
    """Return in a few words what a key takes."""
    if "anyOf" in value:
        return " or ".join(kind(item) for item in value["anyOf"] if item.get("type") != "null")
    if "const" in value:
        return shown(value["const"])
    if "enum" in value:
        return " ".join(shown(item) for item in value["enum"])
    if value.get("type") == "array":
        if "prefixItems" in value:
            return f"list of {len(value['prefixItems'])}: {kind(value['prefixItems'][0])}"
        return f"list of {kind(value['items'])}"
    if "$ref" in value:
        return "table, see below"
    if "discriminator" in value or "oneOf" in value:
        return "table, see below"
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}.get(
        value.get("type", ""), "table, see below"
    )
    bounds = [
        f"{sign} {value[key]:g}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in value
    ]
    return f"{words} {', '.join(bounds)}".strip()


def cli_page() -> str:
    """Return docs/cli.md, as typer writes it."""
    command = [
        sys.executable,
        "-m",
        "typer",
        "plimsoll.cli",
        "utils",
        "docs",
        "--name",
        "plimsoll",
        "--title",
        "The command line",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return html.unescape(done.stdout).rstrip() + "\n"


def architecture_page() -> str:
    """Return docs/architecture.md, with its drawing of the layers and its figures as the package has them today."""
    house = structure.House()
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    text = replaced(text, "layers", drawing(house))
    rows = [f"| {name} | {value} |" for name, value in structure.measure(house).items()]
    return replaced(
        text, "figures", "\n".join(["| measured | today |", "| --- | --- |", *rows]), keep="--check" in sys.argv
    )


def drawing(house: structure.House) -> str:
    """Return the layers as a drawing, each room with the first line of its docstring."""
    lines = []
    for layer in house.layers():
        lines += [("─" * 110), *(f"{room:14} {purpose(house, room)}" for room in layer)]
    return "\n".join(["```text", *lines, "─" * 110, "```"])


def purpose(house: structure.House, room: str) -> str:
    """Return what a room is for: the first sentence of its docstring."""
    file = house.folder / f"{room}.py"
    docstring = ast.get_docstring(
        ast.parse((file if file.exists() else house.folder / room / "__init__.py").read_text())
    )
    return " ".join((docstring or "").partition("\n\n")[0].split())


def replaced(text: str, name: str, content: str, keep: bool = False) -> str:
    """Return the text with what stands between its comments `name` replaced, unless that is to be kept."""
    head, start, rest = text.partition(f"<!-- {name} -->\n")
    old, end, tail = rest.partition(f"<!-- /{name} -->")
    return head + start + (old if keep else content + "\n") + end + tail


def main() -> None:
    """Write the pages, or check them."""
    pages = {"spec.md": spec_page(), "cli.md": cli_page(), "architecture.md": architecture_page()}
    if "--check" not in sys.argv:
        for name, text in pages.items():
            (DOCS / name).write_text(text, encoding="utf-8")
        return
    outdated = [name for name, text in pages.items() if (DOCS / name).read_text(encoding="utf-8") != text]
    if outdated:
        sys.exit(f"not up to date: {', '.join(outdated)}; run `make docs`")


if __name__ == "__main__":
    main()
