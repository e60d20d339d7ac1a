"""Pack a network with its Spec and golden pictures into a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from plimsoll import importers
from plimsoll.backends.runner import Runner
from plimsoll.bundle.bundle import Content, check_destination, write
from plimsoll.bundle.golden import golden_answer, golden_pictures, store, tolerance_for
from plimsoll.bundle.manifest import Manifest, ModelFiles
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.core.version import __version__
from plimsoll.core.wording import explain
from plimsoll.errors import BundleError, ModelError
from plimsoll.preprocessing import Preprocessing, Preprocessor
from plimsoll.report.report import environment
from plimsoll.spec import files as spec_files

_SPEC = "spec.toml"


def pack(  # noqa: PLR0913 - three that say what to pack, and the options
    model: Model,
    target: Target,
    out: Path,
    *,
    preprocessing: Preprocessing = "reference",
    images: Sequence[Path] = (),
    origin: Mapping[str, Any] | None = None,
    extras: Mapping[str, bytes] | None = None,
    force: bool = False,
) -> Path:
    """Write a bundle of the model, its Spec, and what it answers here to golden pictures; returns `out`.

    `out` becomes one zip if it ends in .zip, else a folder. `images` (at most 16) replace Plimsoll's golden pictures;
    they become part of the bundle, metadata included. `origin` says where the network is from.
    `extras` are further files, by their names in the bundle: a proof, a report.

    Raises ModelError for a model without a Spec, ImageError for a picture that the input steps refuse, BundleError
    where `out` exists (unless `force`) or can't be written, CheckError if the network answers NaN or infinity, and
    what `Runner` raises.
    """
    spec = model.require_spec()
    model = importers.reread(model)
    check_destination(out, overwrite=force)
    pictures = list(golden_pictures(images, spec.input.decode))
    preprocessor = Preprocessor(spec.input, preprocessing)
    contents: dict[str, Content] = {**(extras or {}), _SPEC: spec_files.dumps(spec).encode(), **_model_files(model)}
    vectors = []
    with Runner.open(model, target) as runner:
        for picture in pictures:
            answer = golden_answer(picture, preprocessor, runner)
            vectors.append(store(picture, answer, contents))
    try:
        facts = Manifest(
            name=spec.name,
            created=datetime.now(UTC).replace(microsecond=0),
            plimsoll=__version__,
            target=str(target),
            preprocessing=preprocessing,
            model=_described(model),
            spec=_SPEC,
            golden=tuple(vectors),
            tolerance=tolerance_for(spec, target),
            origin=dict(origin) if origin is not None else None,
            environment=environment(),
            files={},
        )
    except ValidationError as error:
        raise BundleError(f"can't be packed: {explain(error)}") from error
    return write(out, contents, facts, overwrite=force)


def _described(model: Model) -> ModelFiles:
    main, *others = _model_files(model)
    return ModelFiles(path=main, format=model.format, files=tuple(others))


def _model_files(model: Model) -> dict[str, Path]:
    """Return the model's files by their names in the bundle, the main one first; their relative positions
    are preserved."""
    folder = model.path.parent
    try:
        return {f"model/{file.relative_to(folder).as_posix()}": file for file in (model.path, *model.files)}
    except ValueError as error:
        raise ModelError(
            f"{model.source}: one of its files is not in its folder or below: {error}", "Move them together."
        ) from error
