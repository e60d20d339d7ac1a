"""A cascade in a bundle: a bundle for each stage, how they feed each other, and golden answers of the whole.

```
manifest.json            what there is, with the size and SHA-256 of every other file
cascade.toml             how the networks feed each other
stages/1-NAME/…          the first stage's bundle, with its own manifest and golden vectors
golden/NAME.jpg          a picture
golden/NAME.json         the boxes that the whole cascade gave
```
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, ValidationError

from plimsoll.bundle import Bundle, CascadeBundle, Content, check_destination, write
from plimsoll.bundle.answers import answer_difference
from plimsoll.bundle.bundle import errors_about, file_sizes
from plimsoll.bundle.golden import PROOF, golden_pictures
from plimsoll.bundle.golden import verify as verify_network
from plimsoll.bundle.manifest import CascadeManifest, WholeAnswer
from plimsoll.bundle.packing import pack
from plimsoll.core.budget import Check
from plimsoll.core.version import __version__
from plimsoll.core.wording import explain
from plimsoll.errors import BundleError, PlimsollError
from plimsoll.inference.cascade import CascadePredictor
from plimsoll.inference.cascade_spec import CascadeSpec, read_cascade, write_cascade
from plimsoll.inference.predictor import ResolvedModel
from plimsoll.metrics.boxes import lowered
from plimsoll.preprocessing import Preprocessing
from plimsoll.preprocessing.formats import SUFFIXES, sniff
from plimsoll.report.report import Report, environment
from plimsoll.system import files
from plimsoll.tasks.detect import Box, Detection

_CASCADE = "cascade.toml"
_MAX_ANSWER_BYTES = 16_000_000
_Position = tuple[FiniteFloat, FiniteFloat] | tuple[FiniteFloat, FiniteFloat, FiniteFloat]


class _StoredBox(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    label: str
    score: FiniteFloat
    box: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
    points: tuple[_Position, ...] = ()


class _StoredAnswer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    boxes: Annotated[tuple[_StoredBox, ...], Field(max_length=1000)]

    def detection(self) -> Detection:
        """Return it as the cascade gave it."""
        return Detection(tuple(Box(box.label, box.score, box.box, box.points) for box in self.boxes))


def pack_cascade(  # noqa: PLR0913 - what to pack, and the options of `pack`
    cascade: CascadeSpec,
    stages: Sequence[ResolvedModel],
    out: Path,
    *,
    images: Sequence[Path] = (),
    origin: Mapping[str, Any] | None = None,
    extras: Mapping[str, bytes] | None = None,
    force: bool = False,
) -> Path:
    """Write a bundle of a cascade, each network with its target, its Spec and its golden vectors; returns `out`.

    `images` (at most 16) replace Plimsoll's golden pictures, `extras` are further files by their names. Raises what
    `plimsoll.bundle.packing.pack` raises.
    """
    check_destination(out, overwrite=force)
    with tempfile.TemporaryDirectory(prefix="plimsoll-cascade-") as folder, ExitStack() as stack:
        names = [f"stages/{number}-{stage.model.require_spec().name}" for number, stage in enumerate(stages, 1)]
        contents: dict[str, Content] = dict(extras or {})
        for name, stage in zip(names, stages, strict=True):
            packed = pack(
                stage.model,
                stage.target,
                Path(folder, name),
                preprocessing=stage.preprocessing,
                scaled_sides=stage.scaled_sides,
                images=images,
                origin=stage.origin,
            )
            contents |= {f"{name}/{file}": packed / file for file in file_sizes(packed)}
        changes = [{"model": name, "spec": None} for name in names]
        inside = tuple(stage.model_copy(update=change) for stage, change in zip(cascade.stages, changes, strict=True))
        whole = cascade.model_copy(update={"stages": inside})
        contents[_CASCADE] = write_cascade(whole).encode()
        opened = [stack.enter_context(Bundle.open(Path(folder, name))) for name in names]
        tolerances = [bundle.manifest.tolerance.answers or bundle.manifest.tolerance.network for bundle in opened]
        Path(folder, _CASCADE).write_bytes(write_cascade(whole).encode())
        golden = []
        with CascadePredictor.open(Path(folder, _CASCADE)) as predictor:
            for picture in golden_pictures(images, predictor.spec.input.decode):
                stem, kind = f"golden/{len(golden) + 1}", sniff(picture.data)
                names_of = (f"{stem}{SUFFIXES[kind][0] if kind else ''}", f"{stem}.json")
                answer = predictor.predict(picture.data, threshold=_least(predictor))
                contents[names_of[0]] = picture.data
                contents[names_of[1]] = json.dumps(answer.row()).encode()
                golden.append(WholeAnswer(picture=names_of[0], answer=names_of[1]))
        facts = CascadeManifest(
            name=cascade.name,
            created=datetime.now(UTC).replace(microsecond=0),
            plimsoll=__version__,
            stages=tuple(names),
            golden=tuple(golden),
            tolerance=max(tolerances),
            origin=dict(origin) if origin is not None else None,
            environment=environment(),
            files={},
        )
        return write(out, contents, facts, overwrite=force)


def open_cascade(path: Path, preprocessing: Preprocessing | None = None) -> CascadePredictor:
    """Open a bundle that holds a cascade for answering pictures; raises BundleError or ModelError."""
    bundle = CascadeBundle.open(path)
    try:
        _check_inside(bundle)
        predictor = CascadePredictor.open(bundle.file(_CASCADE), preprocessing)
    except PlimsollError:
        bundle.close()
        raise
    predictor.at_close.callback(bundle.close)
    return predictor


def _check_inside(bundle: CascadeBundle) -> CascadeSpec:
    """Return the cascade of a bundle; raises BundleError where it names anything outside of the bundle."""
    with errors_about(bundle.path):
        cascade = read_cascade(bundle.file(_CASCADE))
        named = tuple(stage.model for stage in cascade.stages)
        if named != bundle.manifest.stages or any(stage.spec is not None for stage in cascade.stages):
            raise BundleError(
                f"{_CASCADE} names {', '.join(map(repr, named))}; its networks are"
                f" {', '.join(map(repr, bundle.manifest.stages))}",
                "It was changed. Copy or download it again.",
            )
    return cascade


def verify_cascade(bundle: CascadeBundle) -> Report:
    """Run the golden pictures on this machine: each stage's as in any bundle, and the whole cascade's.

    Raises what `plimsoll.bundle.golden.verify` raises.
    """
    _check_inside(bundle)
    checks: list[Check] = []
    measurements: dict[str, JsonValue] = {}
    for name in bundle.manifest.stages:
        with Bundle.open(bundle.file(name)) as stage:
            report = verify_network(stage)
        own = name.rpartition("/")[2]
        checks += [check.model_copy(update={"name": f"{own}: {check.name}"}) for check in report.checks]
        measurements |= report.measurements
    boxes, worst, where = 0, 0.0, "nothing was compared"
    with CascadePredictor.open(bundle.file(_CASCADE)) as predictor:
        for vector in bundle.manifest.golden:
            stored = _stored(bundle, vector.answer)
            boxes += len(stored.boxes)
            answer = predictor.predict(bundle.file(vector.picture), threshold=_least(predictor))
            change = answer_difference(stored, answer, predictor.task.threshold or 0.0)
            if change >= worst:
                worst, where = change, Path(vector.picture).name
        targets = ", ".join(str(network.target) for network in predictor.networks)
    detail = f"{where}; the golden pictures have {boxes} boxes"
    checks.append(
        Check(name="whole cascade: answers", measured=worst, limit=bundle.manifest.tolerance, unit="", detail=detail)
    )
    proof = {"proof": f"in {PROOF}"} if PROOF in bundle.manifest.files else {}
    return Report(
        kind="verify",
        subject=f"{bundle.manifest.name} on {targets}",
        environment=environment(),
        checks=tuple(checks),
        measurements={**measurements, "pictures": len(bundle.manifest.golden), "golden boxes": boxes, **proof},
    )


def _stored(bundle: CascadeBundle, name: str) -> Detection:
    with errors_about(bundle.path):
        try:
            return _StoredAnswer.model_validate_json(files.read_bytes(bundle.file(name), _MAX_ANSWER_BYTES)).detection()
        except ValidationError as error:
            raise BundleError(f"{name}: not a cascade's answer: {explain(error)}") from error


def _least(predictor: CascadePredictor) -> float:
    return lowered(predictor.task.threshold or 0.0)
