"""`plimsoll pack MODEL --out BUNDLE`, and for another server `--for triton --out REPOSITORY`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from plimsoll.core.target import Target
    from plimsoll.inference.resolve import ResolvedModel
    from plimsoll.preprocessing import Preprocessing


def pack(  # noqa: PLR0913 - each parameter is an option of the command
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A zoo name (plimsoll zoo list), a bundle, or a model file with --spec."),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Where the bundle goes: a folder, or one file where the name ends in .zip."),
    ],
    for_: Annotated[
        str | None,
        typer.Option("--for", help="Write what another server takes in place of a bundle. triton: a model repository."),
    ] = None,
    spec: Annotated[Path | None, typer.Option(help="The Spec of a bare model file.")] = None,
    target: Annotated[
        str | None, typer.Option(help="runtime:device:precision. Default: the bundle's, else onnxruntime:cpu:float32.")
    ] = None,
    preprocessing: Annotated[
        str | None, typer.Option(help="Preprocessing: reference or fast. Default: the bundle's, else reference.")
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            help=(
                "Golden pictures in place of Plimsoll's own: a file, folder or pattern; may be repeated. They become"
                " part of the bundle, metadata and all."
            )
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="An option of the server named by --for, as name=value; may be repeated."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a bundle that is there.")] = False,
) -> None:
    """Pack a network, its Spec and golden answers into a bundle that runs and can be verified anywhere."""
    from plimsoll.bundle.packing import pack as write_bundle
    from plimsoll.core.target import Target
    from plimsoll.inference.resolve import open_model

    _check(for_, images or [], set_ or [])
    with open_model(model, spec) as opened:
        wanted = Target.parse(target) if target is not None else opened.target
        chosen: Preprocessing = chosen_preprocessing(preprocessing) or opened.preprocessing
        if for_ == "triton":
            written = _for_triton(opened, wanted, chosen, out, set_ or [], force=force)
        else:
            golden = _golden(images or [])
            written = write_bundle(
                opened.model, wanted, out, preprocessing=chosen, images=golden, origin=opened.origin, force=force
            )
    typer.echo(written)


def _check(server: str | None, images: list[str], options: list[str]) -> None:
    """Raise InputError for a server that there isn't, and for options that don't belong together."""
    from plimsoll.errors import InputError

    if server not in (None, "triton"):
        raise InputError(f"--for {server}: found '{server}', allowed: triton")
    if server is not None and images:
        raise InputError(f"--images doesn't go with --for {server}", "Golden pictures belong to bundles.")
    if server is None and options:
        raise InputError("--set goes with --for alone", "A bundle's options are given where it runs.")


def _for_triton(
    opened: ResolvedModel, target: Target, preprocessing: Preprocessing, out: Path, options: list[str], *, force: bool
) -> Path:
    from plimsoll.cli.predict import _options
    from plimsoll.export.triton import TritonOptions, export

    return export(
        opened.model,
        target,
        out,
        preprocessing=preprocessing,
        options=TritonOptions.read(_options(options)),
        force=force,
    )


def chosen_preprocessing(given: str | None) -> Any:
    """Return the preprocessing that --preprocessing names, None where it is left out; raises InputError for others."""
    from plimsoll.errors import InputError

    if given not in (None, "reference", "fast"):
        raise InputError(f"--preprocessing {given}: found '{given}', allowed: reference, fast")
    return given


def _golden(given: list[str]) -> list[Path]:
    """Return the pictures that are meant; of a folder or pattern with more than a bundle holds, some from all over it."""
    import logging

    from plimsoll.bundle.packing import MAX_PICTURES
    from plimsoll.errors import InputError
    from plimsoll.inference.images import pictures

    found = [Path(picture) for picture in pictures(given)]
    if given and not found:
        raise InputError(
            f"no pictures in {', '.join(given)}",
            "A folder's pictures are known by their endings: .jpg .jpeg .png .webp .bmp .gif .tif .tiff",
        )
    if len(found) <= MAX_PICTURES or len(given) == len(found):
        return found
    logging.getLogger("plimsoll").info("%d of the %s pictures become golden ones", MAX_PICTURES, f"{len(found):,}")
    return [found[place * len(found) // MAX_PICTURES] for place in range(MAX_PICTURES)]
