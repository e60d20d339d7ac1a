"""`plimsoll pack MODEL --out BUNDLE`, and for another server `--for triton --out REPOSITORY`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plimsoll.cli import options

if TYPE_CHECKING:
    from plimsoll.core.model import Model
    from plimsoll.inference.predictor import ResolvedModel


def pack(  # noqa: PLR0913 - each parameter is an option of the command
    model: options.Model,
    out: options.OutBundle,
    for_: Annotated[
        str | None,
        options.choice(
            "--for", ("triton",), "Write a model repository for this server instead of a bundle.", noun="server"
        ),
    ] = None,
    spec: options.Spec = None,
    target: options.ChosenTarget = None,
    policy: options.Policy = None,
    preprocessing: options.Preprocessing = None,
    images: Annotated[
        list[str] | None,
        options.images("Your own golden pictures, which the bundle then contains, metadata included"),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="With --for: an option of the server; may be repeated."),
    ] = None,
    force: options.Force = False,
) -> None:
    """Pack a network, its Spec and golden answers into a bundle that runs and can be verified anywhere."""
    from plimsoll.bundle.packing import pack as pack_bundle
    from plimsoll.errors import InputError
    from plimsoll.inference.cascade import CascadePredictor
    from plimsoll.inference.predictor import cascade_file, load, open_model

    if for_ is not None and images:
        raise InputError(f"--images doesn't go with --for {for_}", "Golden pictures belong to bundles.")
    if for_ is None and set_:
        raise InputError("--set needs --for", "A bundle's options are given where it runs.")
    if for_ is None and (file := cascade_file(model)) is not None:
        from plimsoll.inference.cascade_bundle import pack_cascade

        with load(file, spec=spec, target=target, preprocessing=preprocessing, policy=policy) as cascade:
            assert isinstance(cascade, CascadePredictor)  # noqa: S101 - what `load` makes of such a file
            golden = _golden(images, cascade.model) if images else []
            stages = [network.opened for network in cascade.networks]
            typer.echo(pack_cascade(cascade.stages.spec, stages, out, images=golden, force=force))
        return
    with open_model(model, spec, target=target, preprocessing=preprocessing, policy=policy) as opened:
        if for_ is not None:
            written = _pack_for_triton(opened, out, options.settings(set_ or []), force=force)
        else:
            written = pack_bundle(
                opened.model,
                opened.target,
                out,
                preprocessing=opened.preprocessing,
                scaled_sides=opened.scaled_sides,
                images=_golden(images, opened.model) if images else [],
                origin=opened.origin,
                force=force,
            )
    typer.echo(written)


def _pack_for_triton(opened: ResolvedModel, out: Path, settings: dict[str, str], *, force: bool) -> Path:
    from plimsoll.export.triton import TritonOptions, export

    return export(
        opened.model,
        opened.target,
        out,
        preprocessing=opened.preprocessing,
        options=TritonOptions.read(settings),
        force=force,
    )


def _golden(paths: list[str], model: Model) -> list[Path]:
    """Return the golden pictures: those named one by one, or at most as many of a folder as a bundle holds."""
    from plimsoll.bundle.golden import MAX_PICTURES
    from plimsoll.inference.images import list_images

    formats = model.require_spec().input.decode.formats
    pictures = list_images(paths, formats=formats, all_needed=True)
    if len(pictures) > MAX_PICTURES and len(paths) != len(pictures):
        logging.getLogger("plimsoll").info("%d of the %s pictures become golden", MAX_PICTURES, f"{len(pictures):,}")
        pictures = list_images(paths, MAX_PICTURES, formats)
    return [Path(picture) for picture in pictures]
