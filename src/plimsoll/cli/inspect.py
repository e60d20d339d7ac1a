"""`plimsoll inspect MODEL`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plimsoll.cli import options
from plimsoll.core.wording import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from plimsoll.onnx.inspection import Inspection
    from plimsoll.onnx.load import Value

MOST_OPERATORS = 15
"""This many operators have a row each."""


def inspect(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A zoo name, a model file or a bundle.")],
    spec: Annotated[
        Path | None, typer.Option("--spec", metavar="FILE", help="Check that this Spec fits the model.")
    ] = None,
    json_: options.Json = False,
    graph: Annotated[
        bool, typer.Option("--graph", help="Show the graph in a browser, with Netron, until Ctrl-C.")
    ] = False,
) -> None:
    """Show what a network consists of: inputs, outputs, operators, parameters, and the arithmetic for one picture."""
    from rich.console import Console

    from plimsoll.inference.cascade_bundle import open_whole
    from plimsoll.inference.predictor import open_model
    from plimsoll.onnx.inspection import inspect as look_into
    from plimsoll.quantize import lint

    if spec is None and not graph and (whole := open_whole(model)) is not None:
        with whole:
            inspections = [look_into(network.model) for network in whole.networks]
        if json_:
            stages = [inspection.to_dict() for inspection in inspections]
            typer.echo(json.dumps({"cascade": whole.stages.spec.model_dump(mode="json"), "stages": stages}, indent=2))
            return
        for inspection in inspections:
            _show(inspection, Console())
            typer.echo()
        return
    with open_model(model, spec) as opened:
        if graph:
            _show_graph(opened.model.source)
            return
        inspection = look_into(opened.model)
        findings = [finding for finding in lint(opened.model) if finding.code == "mixed-ranges"]
    if json_:
        typer.echo(
            json.dumps({**inspection.to_dict(), "findings": [asdict(finding) for finding in findings]}, indent=2)
        )
        return
    _show(inspection, Console())
    for finding in findings:
        typer.echo(f"\n{printable(finding.message)}. {finding.advice}")


def _show_graph(path: Path) -> None:
    from plimsoll.core.foreign import require

    netron = require("netron", "pip install 'plimsoll-line[graph]'")
    _confine_pages()
    netron.start(str(path), browse=True)
    netron.wait()  # Returns at Ctrl-C.


def _confine_pages() -> None:
    """Restrict the pages that this process serves to connecting to this process.

    Netron's page looks up the reader's country and then reports to Google Analytics, with its address and title. The
    cookie marks the consent dialog as answered.
    """
    from http.server import BaseHTTPRequestHandler  # It would slow every start down.

    end_headers = BaseHTTPRequestHandler.end_headers

    def confined(self: BaseHTTPRequestHandler) -> None:
        self.send_header("Content-Security-Policy", "connect-src 'self'")
        self.send_header("Set-Cookie", "consent=0")
        end_headers(self)

    BaseHTTPRequestHandler.end_headers = confined  # type: ignore[method-assign]


def _show(inspection: Inspection, console: Console) -> None:
    sizes = ", ".join(
        f"{dtype} {count:,} ({_megabytes(inspection.parameter_bytes[dtype])})"
        for dtype, count in inspection.parameter_counts.items()
    )
    facts = {
        "model": inspection.name,
        "file": f"{inspection.path} ({_megabytes(inspection.bytes)})",
        "external files": ", ".join(inspection.external_files),
        "format": (
            f"{inspection.format}, IR version {inspection.ir_version}, opset"
            f" {', '.join(f'{domain} {version}' for domain, version in inspection.opsets.items())}"
        ),
        "producer": inspection.producer,
        "parameters": (
            f"{inspection.parameters:,}: {sizes}"
            if len(inspection.parameter_counts) != 1
            else f"{inspection.parameters:,}, {sizes.partition(' ')[0]}"
        ),
        "one picture": (
            f"{_giga(inspection.flops)}FLOPs, of which {_giga(inspection.macs)}MACs (a multiply-accumulate is 2 FLOPs)"
        ),
        "not counted": ", ".join(f"{count:,} × {name}" for name, count in inspection.uncounted.items()),
    }
    console.print(_facts(facts))
    console.print()
    console.print(_values("input", inspection.inputs, "output", inspection.outputs))
    console.print()
    console.print(_operators(inspection.operators))


def _facts(facts: dict[str, str]) -> Table:
    table = _table()
    table.show_header = False
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in facts.items():
        if value:
            table.add_row(key, _plain(value, bold=key == "model"))
    return table


def _values(*sides: Any) -> Table:
    """Make the table of inputs and outputs out of pairs of a heading and its values."""
    table = _table()
    for heading in ("", "name", "dtype", "shape"):
        table.add_column(heading, overflow="fold")
    for heading, values in zip(sides[::2], sides[1::2], strict=True):
        for value in values:
            table.add_row(_plain(heading), _plain(value.name, bold=True), _plain(value.dtype), _plain(_shape(value)))
    return table


def _operators(operators: dict[str, int]) -> Table:
    table = _table()
    table.add_column("operator")
    table.add_column("count", justify="right")
    table.add_column("", no_wrap=True)
    rows = list(operators.items())
    most = max(operators.values(), default=1)
    for name, count in rows[:MOST_OPERATORS]:
        table.add_row(_plain(name), f"{count:,}", _plain("━" * max(1, round(24 * count / most)), colour="cyan"))
    if len(rows) > MOST_OPERATORS:
        table.add_row(
            f"{len(rows) - MOST_OPERATORS} others", f"{sum(count for _, count in rows[MOST_OPERATORS:]):,}", ""
        )
    return table


def _table() -> Table:
    from rich.table import Table

    return Table(box=None, pad_edge=False, header_style="dim")


def _plain(text: str, *, bold: bool = False, colour: str = "") -> Any:
    """Return text that rich neither reads markup in nor lets control the terminal: names come from the file."""
    from rich.text import Text

    style = f"{'bold ' if bold else ''}{colour}".strip()
    return Text(printable(text), style=style)


def _shape(value: Value) -> str:
    if value.shape is None:
        return "any"
    return f"[{', '.join('?' if size is None else str(size) for size in value.shape)}]"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 100_000 else f"{count:,} bytes"


def _giga(count: int) -> str:
    """Write a count with the unit's prefix, as in `2.1 G`."""
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:,.2f} {prefix}"
    return f"{count:,} "
