"""What a cascade's bundle holds beside those of its networks: golden answers of the whole, and how they are
verified."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, ValidationError

from plimsoll.bundle.answers import answer_difference
from plimsoll.bundle.bundle import Bundle, CascadeBundle, Content, errors_about
from plimsoll.bundle.golden import PROOF, golden_pictures
from plimsoll.bundle.golden import verify as verify_network
from plimsoll.bundle.manifest import CascadeManifest, WholeAnswer
from plimsoll.core.budget import Check
from plimsoll.core.version import __version__
from plimsoll.core.wording import explain
from plimsoll.errors import BundleError
from plimsoll.metrics.boxes import lowered
from plimsoll.preprocessing.decode import sample_pictures
from plimsoll.preprocessing.formats import SUFFIXES, sniff
from plimsoll.report.report import Report, environment
from plimsoll.spec.steps import Decode
from plimsoll.system import files
from plimsoll.tasks.detect import Box, Detection

_log = logging.getLogger(__name__)
_MAX_ANSWER_BYTES = 16_000_000
_Position = tuple[FiniteFloat, FiniteFloat] | tuple[FiniteFloat, FiniteFloat, FiniteFloat]

Verification = Report
Answering = Callable[[bytes | Path, float], Detection]
"""Answers a picture with the whole cascade, boxes from a score on."""


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


def golden_answers(
    images: Sequence[Path], step: Decode, answer: Answering, confidence: float
) -> tuple[list[WholeAnswer], dict[str, Content]]:
    """Return the golden pictures with the whole's answers, and their files by name; raises ImageError.

    Where the cascade finds something in all of them, one is added in which it finds nothing.
    """
    answered = [(picture.data, answer(picture.data, lowered(confidence))) for picture in golden_pictures(images, step)]
    if all(given.boxes for _, given in answered):
        candidates = (*(data for _, data in sample_pictures(step)), *_black(step))
        others = ((data, answer(data, lowered(confidence))) for data in candidates)
        answered += [*islice((pair for pair in others if not pair[1].boxes), 1)]
    elif not any(given.boxes for _, given in answered):
        _log.warning(
            "the cascade finds nothing in the golden pictures: `verify` compares no answer of the whole. Give pictures"
            " that show what it finds with --images, or to ship --golden-from-images"
        )
    golden, contents = list[WholeAnswer](), dict[str, Content]()
    for number, (data, given) in enumerate(answered, 1):
        stem, kind = f"golden/{number}", sniff(data)
        vector = WholeAnswer(picture=f"{stem}{SUFFIXES[kind][0] if kind else ''}", answer=f"{stem}.json")
        contents[vector.picture] = data
        contents[vector.answer] = json.dumps(given.row()).encode()
        golden.append(vector)
    return golden, contents


def _black(step: Decode) -> list[bytes]:
    """Return a picture that is black all over, where the Spec accepts its format."""
    file = io.BytesIO()
    Image.new("RGB", (320, 240)).save(file, "PNG")
    return [file.getvalue()] if "png" in step.formats else []


def facts(name: str, stages: Mapping[str, Bundle], golden: Sequence[WholeAnswer], origin: Any) -> CascadeManifest:
    """Return the manifest of a bundle with these stages' bundles, without its files."""
    tolerances = [bundle.manifest.tolerance.answers or bundle.manifest.tolerance.network for bundle in stages.values()]
    return CascadeManifest(
        name=name,
        created=datetime.now(UTC).replace(microsecond=0),
        plimsoll=__version__,
        stages=tuple(stages),
        golden=tuple(golden),
        tolerance=max(tolerances),
        origin=dict(origin) if origin is not None else None,
        environment=environment(),
        files={},
    )


def verify(bundle: CascadeBundle, answer: Answering, confidence: float) -> Report:
    """Run the golden pictures on this machine: each stage's as in any bundle, and the whole cascade's.

    Raises what `plimsoll.bundle.golden.verify` raises.
    """
    checks: list[Check] = []
    measurements: dict[str, JsonValue] = {}
    targets = []
    for name in bundle.manifest.stages:
        with Bundle.open(bundle.file(name)) as stage:
            report = verify_network(stage)
            targets.append(str(stage.target))
        own = name.rpartition("/")[2]
        checks += [check.model_copy(update={"name": f"{own}: {check.name}"}) for check in report.checks]
        measurements |= report.measurements
    boxes, worst, where = 0, 0.0, "nothing was compared"
    for vector in bundle.manifest.golden:
        stored = _stored(bundle, vector.answer)
        boxes += len(stored.boxes)
        change = answer_difference(stored, answer(bundle.file(vector.picture), lowered(confidence)), confidence)
        if change >= worst:
            worst, where = change, Path(vector.picture).name
    detail = f"{where}; the golden pictures have {boxes} boxes"
    checks.append(
        Check(name="whole cascade: answers", measured=worst, limit=bundle.manifest.tolerance, unit="", detail=detail)
    )
    proof = {"proof": f"in {PROOF}"} if PROOF in bundle.manifest.files else {}
    return Report(
        kind="verify",
        subject=f"{bundle.manifest.name} on {', '.join(dict.fromkeys(targets))}",
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
