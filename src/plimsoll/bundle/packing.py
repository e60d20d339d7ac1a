"""Pack a network with its Spec and golden pictures into a bundle."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import ValidationError

from plimsoll import backends, importers
from plimsoll.backends.runner import Runner
from plimsoll.bundle import tensor_file
from plimsoll.bundle.bundle import Content, check_destination, write
from plimsoll.bundle.golden import golden_answer, golden_pictures, store, tolerance_for
from plimsoll.bundle.manifest import PICTURE_LIBRARIES, GoldenVector, Manifest, ModelFiles
from plimsoll.core.model import Model, ModelRecord
from plimsoll.core.target import Target
from plimsoll.core.version import __version__
from plimsoll.core.wording import explain
from plimsoll.errors import BuildError, BundleError, ModelError
from plimsoll.preprocessing import Preprocessing, Preprocessor, libraries
from plimsoll.report.report import environment
from plimsoll.spec import files as spec_files
from plimsoll.system import subprocesses
from plimsoll.system.subprocesses import JobError, ProcessDiedError, ProcessLimits

_SPEC = "spec.toml"


def pack(  # noqa: PLR0913 - three that say what to pack, and the options
    model: Model,
    target: Target,
    out: Path,
    *,
    preprocessing: Preprocessing = "reference",
    scaled_sides: tuple[int, int] | None = None,
    images: Sequence[Path] = (),
    origin: Mapping[str, Any] | None = None,
    extras: Mapping[str, bytes] | None = None,
    force: bool = False,
) -> Path:
    """Write a bundle of the model, its Spec, and what it answers here to golden pictures; returns `out`.

    `out` becomes one zip if it ends in .zip, else a folder. `images` (at most 16) replace Plimsoll's golden pictures;
    they become part of the bundle, metadata included. `origin` says where the network is from. `scaled_sides` are the
    shorter sides of the pictures, from … to, on which scaled preprocessing was proven: see `Preprocessor`.
    `extras` are further files, by their names in the bundle: a proof, a report.

    Raises ModelError for a model without a Spec, ImageError for a picture that the input steps refuse, BundleError
    where `out` exists (unless `force`) or can't be written, CheckError if the network answers NaN or infinity, and
    what `Runner` raises.
    """
    spec = model.require_spec()
    model = importers.reread(model)
    check_destination(out, overwrite=force)
    contents: dict[str, Content] = {**(extras or {}), _SPEC: spec_files.dumps(spec).encode(), **_model_files(model)}
    with TemporaryDirectory(prefix="plimsoll-pack-") as folder:
        vectors, stored = _golden_vectors(model, target, (preprocessing, scaled_sides), images, Path(folder))
        facts = _manifest(model, target, (preprocessing, scaled_sides), vectors, origin)
        return write(out, contents | stored, facts, overwrite=force)


def _manifest(
    model: Model,
    target: Target,
    steps: tuple[Preprocessing, tuple[int, int] | None],
    vectors: Sequence[GoldenVector],
    origin: Mapping[str, Any] | None,
) -> Manifest:
    spec = model.require_spec()
    try:
        return Manifest(
            name=spec.name,
            created=datetime.now(UTC).replace(microsecond=0),
            plimsoll=__version__,
            target=str(target),
            preprocessing=steps[0],
            scaled_sides=steps[1],
            model=_described(model),
            spec=_SPEC,
            golden=tuple(vectors),
            tolerance=tolerance_for(spec, target),
            origin=dict(origin) if origin is not None else None,
            environment={**environment(), PICTURE_LIBRARIES: libraries.versions(steps[0])},
            files={},
        )
    except ValidationError as error:
        raise BundleError(f"can't be packed: {explain(error)}") from error


def _golden_vectors(
    model: Model,
    target: Target,
    steps: tuple[Preprocessing, tuple[int, int] | None],
    images: Sequence[Path],
    folder: Path,
) -> tuple[list[GoldenVector], dict[str, Content]]:
    """Let the network answer the golden pictures in a process of its own, so that a crash of its runtime is an error;
    return the vectors, and the files that belong to them by their names in the bundle."""
    payload = {
        "model": ModelRecord.of(model).model_dump(mode="json"),
        "target": str(target),
        "steps": steps,
        "images": [str(image.absolute()) for image in images],
        "folder": str(folder),
    }
    try:
        answered = subprocesses.run_job(__name__, payload, folder / "job", ProcessLimits(math.inf))
    except ProcessDiedError as error:
        raise BuildError(
            f"{model.source}: {backends.get(target.runtime).title} crashed while the network answered the golden"
            f" pictures: {error.message}",
            "Choose another target; `plimsoll targets` lists them.",
        ) from error
    except JobError as error:
        # The log goes with the folder.
        raise error.__cause__ or BuildError(f"{model.source}: {error.message}") from error
    vectors = [GoldenVector.model_validate(vector) for vector in answered["vectors"]]
    return vectors, {name: Path(file) for name, file in answered["files"].items()}


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Answer the golden pictures, in the process of `_golden_vectors`, and write them and their tensors to files."""
    model = ModelRecord.model_validate(payload["model"]).model
    spec, folder = model.require_spec().input, Path(payload["folder"])
    pictures = list(golden_pictures([Path(image) for image in payload["images"]], spec.decode))
    preprocessor = Preprocessor(spec, *payload["steps"])
    contents: dict[str, Content] = {}
    with Runner.open(model, Target.parse(payload["target"])) as runner:
        vectors = [store(picture, golden_answer(picture, preprocessor, runner), contents) for picture in pictures]
    written = {name: folder / str(number) for number, name in enumerate(contents)}
    for name, content in contents.items():
        if not isinstance(content, Path):
            written[name].write_bytes(content if isinstance(content, bytes) else tensor_file.dumps(content))
    return {
        "vectors": [vector.model_dump(mode="json") for vector in vectors],
        "files": {name: str(file) for name, file in written.items()},
    }


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
