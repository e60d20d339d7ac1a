"""Pack a network with its Spec and golden pictures into a bundle, and verify on another machine that it answers alike."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from plimsoll import __version__, importers
from plimsoll.backends.runner import Runner
from plimsoll.bundle import Bundle, Content, check_destination, write
from plimsoll.bundle.golden_check import Golden, checks_of, compare, tolerance_for
from plimsoll.bundle.manifest import GoldenVector, Manifest, ModelFiles
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.core.wording import explain
from plimsoll.errors import BundleError, CheckError, ImageError, InputError, ModelError
from plimsoll.preprocessing import Preprocessing, Preprocessor
from plimsoll.preprocessing.decode import read, sniff
from plimsoll.report.report import Report, environment
from plimsoll.spec import files as spec_files
from plimsoll.spec.steps import Decode

MAX_PICTURES = 16
"""Golden pictures are a self-test, not a data set."""

PROOF = "report/report.json"
"""Where the report of a shipped bundle lies."""

_SPEC = "spec.toml"
_SUFFIXES = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "bmp": ".bmp", "gif": ".gif", "tiff": ".tiff"}


@dataclass(frozen=True)
class _Picture:
    name: str
    data: bytes


def pack(  # noqa: PLR0913 - the three that say what is packed, and what may be said about it
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

    `out` becomes one zip where it ends in .zip, else a folder. `images` (at most 16) replace the golden pictures that
    Plimsoll brings along; they become part of the bundle, metadata and all. `origin` says where the network is from.
    `extras` are further files, by their names in the bundle: a proof, a report.

    Raises ModelError for a model without a Spec, ImageError for a picture that the input steps refuse, BundleError
    where `out` exists (unless `force`) or can't be written, CheckError where the network answers NaN or infinity, and
    what `Runner` raises.
    """
    spec = model.contract()
    model = _checked(model)
    check_destination(out, overwrite=force)
    pictures = list(_chosen(images, spec.input.decode))
    preprocessor = Preprocessor(spec.input, preprocessing)
    contents: dict[str, Content] = {**(extras or {}), _SPEC: spec_files.dumps(spec).encode(), **_model_files(model)}
    vectors = []
    with Runner.open(model, target) as runner:
        for picture in pictures:
            golden = _answered(picture, preprocessor, runner)
            vectors.append(_store(picture, golden, contents))
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
            tolerance=tolerance_for(spec.input, target),
            origin=dict(origin) if origin is not None else None,
            environment=environment(),
            files={},
        )
    except ValidationError as error:
        raise BundleError(f"can't be packed: {explain(error)}") from error
    return write(out, contents, facts, overwrite=force)


def _checked(model: Model) -> Model:
    """Read the model's file again where its kind is known: that finds external weights, and refuses those that lie
    elsewhere."""
    for source in importers.readers():
        if source.name == model.format:
            return source.read(model.path, model.spec)
    return model


def _described(model: Model) -> ModelFiles:
    main, *others = _model_files(model)
    return ModelFiles(path=main, format=model.format, files=tuple(others))


def _model_files(model: Model) -> dict[str, Path]:
    """Return the model's files by their names in the bundle, the main one first; they keep their places beside one
    another."""
    folder = model.path.parent
    try:
        return {f"model/{file.relative_to(folder).as_posix()}": file for file in (model.path, *model.files)}
    except ValueError as error:
        raise ModelError(
            f"{model.path}: one of its files is not in its folder or below: {error}", "Move them together."
        ) from error


def _chosen(images: Sequence[Path], step: Decode) -> Iterator[_Picture]:
    """Yield the golden pictures: the given ones, or those of the package whose format the Spec accepts."""
    if len(images) > MAX_PICTURES:
        raise ImageError(
            f"{len(images)} golden pictures; a bundle holds at most {MAX_PICTURES}",
            "Choose fewer: they are a self-test.",
        )
    for image in images:
        try:
            yield _Picture(image.name, read(image))
        except ImageError as error:
            raise ImageError(f"{image}: {error.message}", error.hint) from error
    if images:
        return
    own = [
        _Picture(entry.name, entry.read_bytes())
        for entry in files("plimsoll.bundle").joinpath("golden").iterdir()
        if not entry.name.endswith(".md")
    ]
    accepted = [picture for picture in sorted(own, key=lambda one: one.name) if sniff(picture.data) in step.formats]
    if not accepted:
        raise ImageError(
            f"none of the golden pictures is of a format that the Spec accepts ({', '.join(step.formats)})",
            "Give pictures with --images.",
        )
    yield from accepted


def _answered(picture: _Picture, preprocessor: Preprocessor, runner: Runner) -> Golden:
    """Return what a picture becomes and what the network answers to it, here."""
    try:
        tensor = preprocessor(picture.data)
    except ImageError as error:
        raise ImageError(
            f"golden picture {picture.name}: {error.message}", error.hint or "Give other pictures with --images."
        ) from error
    outputs = runner.infer(tensor[np.newaxis])
    for name, value in outputs.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise CheckError(
                f"golden picture {picture.name}: the output '{name}' has values that are NaN or infinite",
                "A bundle could prove nothing with them.",
            )
    return Golden(tensor, outputs)


def _store(picture: _Picture, golden: Golden, contents: dict[str, Content]) -> GoldenVector:
    """Put a picture and its tensors among the contents, under a name that no other has."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(picture.name).stem)[:60].strip("_") or "picture"
    taken = {name.lower() for name in contents}
    stem = next(
        one
        for one in (plain, *(f"{plain}-{number}" for number in range(2, MAX_PICTURES + 2)))
        if f"golden/{one}.input.npy".lower() not in taken
    )
    format_ = sniff(picture.data)
    name = f"golden/{stem}{_SUFFIXES[format_] if format_ else ''}"
    vector = GoldenVector(
        picture=name,
        tensor=f"golden/{stem}.input.npy",
        outputs={output: f"golden/{stem}.{place}.npy" for place, output in enumerate(golden.outputs)},
    )
    contents[name] = picture.data
    contents[vector.tensor] = golden.tensor
    contents |= {file: golden.outputs[output] for output, file in vector.outputs.items()}
    return vector


def verify(bundle: Bundle) -> Report:
    """Run the golden pictures on this machine and compare with what was stored; opening has checked the hashes already.

    Four checks: the input steps (worst and mean difference, in picture levels of 255), the network (stored tensors
    through it), and the whole way (pictures to outputs). NaN, infinity, another shape or a picture that is refused here
    fails its check. The measurements say what differs between this machine and the one where the bundle was packed, and
    what was proven there.

    Raises BackendMissingError or BuildError where the bundle can't run here at all, BundleError for a damaged tensor,
    ModelError or SpecError where network and Spec don't fit.
    """
    preprocessor = Preprocessor(bundle.spec.input, bundle.preprocessing)
    with Runner.open(_checked(bundle.model), bundle.target) as runner:
        rows = []
        for vector in bundle.manifest.golden:
            golden = Golden(
                bundle.tensor(vector.tensor), {name: bundle.tensor(file) for name, file in vector.outputs.items()}
            )
            rows.append(compare(golden, bundle.file(vector.picture), preprocessor, runner))
    here = environment()
    measurements = {"pictures": len(rows), "outputs": len(bundle.manifest.golden[0].outputs)}
    return Report(
        kind="verify",
        subject=f"{bundle.name} on {bundle.target} behind the {bundle.preprocessing} input steps",
        environment=here,
        checks=checks_of(rows, bundle.manifest.tolerance),
        measurements={**measurements, **_proven(bundle), **_same_machine(bundle.manifest.environment, here)},
    )


ROUNDING = ("architecture", "instruction_sets", "versions")
"""What changes how networks are computed: where these are the same, most kernels round alike and a proof carries over.
"""
SPEED = ("processor", "cores", "system", "python")
"""What changes how fast that is."""


def _proven(bundle: Bundle) -> dict[str, str]:
    """Return what the report in a shipped bundle is about and what it showed; nothing where there is none that can be
    read."""
    if PROOF not in bundle.manifest.files:
        return {}
    try:
        found = Report.read(bundle.file(PROOF))
    except InputError:
        return {"proof": f"{PROOF} can't be read by this version"}
    kept = sum(check.passed for check in found.checks)
    judged = found.measurements.get("pictures judged")
    on = f" on {judged:,} pictures" if isinstance(judged, int) else ""
    return {"proof": f"{found.kind} of {found.subject}: {kept} of {len(found.checks)} limits of the budget kept{on}"}


def _same_machine(packed: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, str]:
    """Say for each fact about the machine whether it is the same here as where the bundle was packed, and of all
    together first."""
    facts = {fact.replace("_", " "): _difference(packed.get(fact), here.get(fact)) for fact in (*ROUNDING, *SPEED)}
    other = [name for name, same in facts.items() if same != "yes"]
    return {
        "as it was packed": f"no, other {', '.join(other)}" if other else "yes",
        **{f"same {name}": same for name, same in facts.items()},
    }


def _difference(packed: Any, here: Any) -> str:
    if packed == here:
        return "yes"
    if isinstance(packed, list) and isinstance(here, list):
        before, now = set(map(str, packed)), set(map(str, here))
        parts = [("only where packed", before - now), ("only here", now - before)]
        return "no: " + "; ".join(f"{where} {', '.join(sorted(names))}" for where, names in parts if names)
    if isinstance(packed, dict) and isinstance(here, dict):
        changed = [name for name in sorted(packed.keys() | here.keys()) if packed.get(name) != here.get(name)]
        return "no: " + "; ".join(
            f"{name} {packed.get(name, 'absent')}, here {here.get(name, 'absent')}" for name in changed
        )
    return f"no: packed on {packed}, here {here}"
