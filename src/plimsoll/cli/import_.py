"""`plimsoll import SOURCE --out model.onnx`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plimsoll.cli import options
from plimsoll.core.wording import printable

if TYPE_CHECKING:
    from plimsoll.importers.conversion import ImportedModel


def import_(  # noqa: PLR0913 - each parameter is an option of the command
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="A model of another framework: a file, a folder, or the prefix of a checkpoint."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FILE", help="NAME.onnx; or a bundle, NAME.plimsoll or NAME.zip, which needs --spec."
        ),
    ],
    spec: Annotated[
        Path | None,
        typer.Option("--spec", metavar="FILE", help="The model's Spec, checked against it; a bundle contains it."),
    ] = None,
    inputs: Annotated[
        str, typer.Option("--inputs", metavar="NAME,…", help="Input tensors, by the source's names. Default: detected.")
    ] = "",
    outputs: Annotated[
        str,
        typer.Option("--outputs", metavar="NAME,…", help="Output tensors, by the source's names. Default: detected."),
    ] = "",
    shape: Annotated[
        list[str] | None,
        typer.Option(
            "--shape",
            metavar="NAME=SIZES",
            help="An input's shape where the source leaves it open, for example x=N,224,224,3; may be repeated.",
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="Fix the batch to this size. Default: as in the source.")
    ] = None,
    architecture: Annotated[
        str,
        typer.Option(
            "--architecture", metavar="NAME", help="The network of bare weights; or module:callable, with --trust."
        ),
    ] = "",
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Let the file run its own code: only if you trust its author as you do a program's."
        ),
    ] = False,
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep", metavar="FILE", help="Keep the intermediate form too: for TensorFlow the frozen graph, NAME.pb."
        ),
    ] = None,
    force: options.Force = False,
) -> None:
    """Convert a model of another framework to ONNX, and verify that it gives the same answers."""
    import tempfile

    from plimsoll.errors import InputError
    from plimsoll.importers.base import ImportOptions
    from plimsoll.importers.conversion import import_model
    from plimsoll.spec import files as spec_files

    for file in (out, keep):
        if file is not None and file.exists() and not force:
            raise InputError(f"{file} exists", "Choose another name, or overwrite it with --force.")
    if out.suffix not in {".onnx", ".plimsoll", ".zip"}:
        raise InputError(f"--out: '{out}' does not end in .onnx, .plimsoll or .zip")
    contract = spec_files.read(spec) if spec is not None else None
    if contract is None and out.suffix != ".onnx":
        raise InputError(
            f"{out}: a bundle needs a Spec, which says how pictures become the model's input",
            "Give --spec FILE, or --out NAME.onnx.",
        )
    shapes = dict(map(_shape, shape or []))
    import_options = ImportOptions(_names(inputs), _names(outputs), shapes, batch, trust, architecture, keep)
    with tempfile.TemporaryDirectory(prefix="plimsoll-import-") as folder:
        imported = import_model(source, Path(folder), import_options, contract)
        _print_summary(source, imported, keep)
        _write(imported, out, force)
    typer.echo(out)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _shape(text: str) -> tuple[str, tuple[int | None, ...]]:
    """Read `NAME=N,224,224,3`; a size that is not a number is free."""
    from plimsoll.errors import InputError

    name, _, sizes = text.rpartition("=")
    parts = [part.strip() for part in sizes.split(",")]
    if not name or not all(part.isdecimal() or part.isidentifier() or part == "?" for part in parts):
        raise InputError(f"--shape: '{text}' is not a name and sizes", "For example --shape x=N,224,224,3.")
    return name, tuple(int(part) if part.isdecimal() else None for part in parts)


def _print_summary(source: Path, imported: ImportedModel, keep: Path | None) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from plimsoll.core.fit import describe
    from plimsoll.onnx import load

    proto = load.read(imported.model.path).proto
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    table.add_row("source", escape(printable(f"{source}: {imported.source}")))
    for side, values in zip(("input", "output"), load.inputs_and_outputs(proto), strict=True):
        for value in values:
            table.add_row(side, escape(printable(f"{value.name}: {describe(value.dtype, value.shape)}")))
    table.add_row("opset", str(load.opset(proto)))
    table.add_row("parity", escape(str(imported.parity)) if imported.parity is not None else "[yellow]not measured[/]")
    for note in imported.notes:
        table.add_row("note", escape(printable(note)))
    if keep is not None:
        table.add_row("intermediate", escape(str(keep)))
    Console(stderr=True).print(table)


def _write(imported: ImportedModel, out: Path, force: bool) -> None:
    """Write the network to `out`: as an ONNX file, with its external weights beside it, or as a bundle."""
    import shutil

    from plimsoll.bundle.packing import pack
    from plimsoll.core.target import REFERENCE_TARGET
    from plimsoll.errors import InputError

    model = imported.model
    if out.suffix != ".onnx":
        pack(model, REFERENCE_TARGET, out, force=force)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = {file: out.parent / file.relative_to(model.path.parent) for file in model.files}
    for file, target in beside.items():
        if target.exists() and not force:
            raise InputError(
                f"{target} exists, and the model's weights go there",
                "Choose another folder, or overwrite it with --force.",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    shutil.copyfile(model.path, out)
