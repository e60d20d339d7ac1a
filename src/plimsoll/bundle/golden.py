"""Golden pictures: packed into a bundle with the network's answers, and verified by comparing the answers here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll import importers
from plimsoll.backends.runner import Runner
from plimsoll.bundle import answers
from plimsoll.bundle.bundle import Bundle, Content
from plimsoll.bundle.manifest import GoldenVector, StepDigest, Tolerance
from plimsoll.bundle.step_digests import input_steps, step_digests
from plimsoll.core.budget import Check
from plimsoll.core.deviation import TensorDeviation, deviation
from plimsoll.core.target import Target
from plimsoll.errors import CheckError, ImageError, InputError, PlimsollError
from plimsoll.preprocessing import Preprocessor
from plimsoll.preprocessing.decode import read, sample_pictures
from plimsoll.preprocessing.formats import SUFFIXES, sniff
from plimsoll.report.report import Report, environment
from plimsoll.spec import Input, Spec
from plimsoll.spec.steps import Decode, Jpeg, Scale, Std

MAX_PICTURES = 16
"""Golden pictures are a self-test, not a data set."""

_INPUT = (2.0, 0.25)
_INPUT_THROUGH_JPEG = (32.0, 0.75)
"""Largest and mean difference of input tensors that pass, in levels of 255.

Reference preprocessing gives the same bytes wherever the same Pillow and libjpeg-turbo run; other decoders are known to
differ by one or two levels. A `jpeg` step enlarges that, since a level can tip a coefficient over to the next
quantization step: on 12 photos of 256 x 256 with 5 % of the samples off by one, quality 75 made it 9 to 30 levels at
worst and 0.24 to 0.60 on the mean. A wrong resize filter (bicubic for bilinear) made it 34 to 54 and 1.18 to 5.2: there
the mean tells them apart."""

_NETWORK = {"float32": 1e-4, "float16": 2e-3, "bfloat16": 1e-2}
_NETWORK_QUANTIZED = 2e-2
_COLUMNS_QUANTIZED = 0.1
"""Of a head's columns: the largest of thousands of differences, where a classifier has a few. The decoded answers are
compared beside."""
_ANSWERS = {"float32": 0.01, "float16": 0.05, "bfloat16": 0.1}
_ANSWERS_QUANTIZED = 0.25
_END_TO_END = 1e-3
"""What outputs may differ by: float32 kernels of other instruction sets sum in another order, coarser precisions round
more.

Measured with open_nsfw on 58 photos, largest difference of a score. The same runtime with 1 and with 4 threads, each
precision: none. float32, one runtime against another: 5e-7. float16 and bfloat16 differ from float32 by 2.4e-4 and
1.3e-3 in all, which is the most that other kernels of theirs can change; eight times as much, since other networks are
more sensitive. int8, one network in both runtimes: 0.005 to 0.013; on a processor without VNNI (held to AVX2)
sums that saturate made it 0.034 to 0.065, which has to be caught."""


@dataclass(frozen=True)
class GoldenPicture:
    """A picture file to pack."""

    name: str
    data: bytes


@dataclass(frozen=True)
class GoldenAnswer:
    """A picture's input tensor without the batch axis, every output by name with it, and what each input step gave."""

    tensor: NDArray[Any]
    outputs: Mapping[str, NDArray[Any]]
    steps: tuple[StepDigest, ...] = ()


@dataclass(frozen=True)
class Difference:
    """A measured difference and where it occurred; NaN if it could not be measured, and `where` says why."""

    value: float
    where: str


@dataclass(frozen=True)
class PictureDifferences:
    """The differences of one golden picture."""

    input_max: Difference
    input_mean: Difference
    network: Difference
    end_to_end: Difference
    answer: Difference | None = None
    """Of the decoded answers to the stored tensor; None where they are not compared."""


def golden_pictures(images: Sequence[Path], step: Decode) -> Iterator[GoldenPicture]:
    """Yield the golden pictures: the given ones, or those of the package whose format the Spec accepts."""
    if len(images) > MAX_PICTURES:
        raise ImageError(
            f"{len(images)} golden pictures; a bundle holds at most {MAX_PICTURES}",
            "Choose fewer: they are a self-test.",
        )
    for image in images:
        try:
            yield GoldenPicture(image.name, read(image))
        except ImageError as error:
            raise ImageError(f"{image}: {error.message}", error.hint) from error
    if images:
        return
    accepted = [GoldenPicture(name, data) for name, data in sample_pictures(step)]
    if not accepted:
        raise ImageError(
            f"none of the golden pictures is of a format that the Spec accepts ({', '.join(step.formats)})",
            "Give pictures with --images.",
        )
    yield from accepted


def golden_answer(picture: GoldenPicture, preprocessor: Preprocessor, runner: Runner) -> GoldenAnswer:
    """Return a picture's tensor and the network's answer, computed here."""
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
                "A bundle with such values could not be verified.",
            )
    return GoldenAnswer(tensor, outputs, step_digests(preprocessor, picture.data))


def store(picture: GoldenPicture, answer: GoldenAnswer, contents: dict[str, Content]) -> GoldenVector:
    """Add a picture and its tensors to the contents, under an unused name."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(picture.name).stem)[:60].strip("_") or "picture"
    taken = {name.lower() for name in contents}
    candidates = (plain, *(f"{plain}-{number}" for number in range(2, MAX_PICTURES + 2)))
    stem = next(name for name in candidates if f"golden/{name}.input.npy".lower() not in taken)
    format_ = sniff(picture.data)
    name = f"golden/{stem}{SUFFIXES[format_][0] if format_ else ''}"
    vector = GoldenVector(
        picture=name,
        tensor=f"golden/{stem}.input.npy",
        outputs={output: f"golden/{stem}.{index}.npy" for index, output in enumerate(answer.outputs)},
        steps=answer.steps,
    )
    contents[name] = picture.data
    contents[vector.tensor] = answer.tensor
    contents |= {file: answer.outputs[output] for output, file in vector.outputs.items()}
    return vector


def tolerance_for(spec: Spec, target: Target) -> Tolerance:
    """Return the tolerances for a new bundle."""
    through_jpeg = any(isinstance(step, Jpeg) for step in spec.input.steps)
    input_max, input_mean = _INPUT_THROUGH_JPEG if through_jpeg else _INPUT
    columns = answers.has_columns(spec)
    network = _NETWORK.get(target.precision, _COLUMNS_QUANTIZED if columns else _NETWORK_QUANTIZED)
    return Tolerance(
        input_max=input_max,
        input_mean=input_mean,
        network=network,
        end_to_end=max(network, _END_TO_END),
        columns=columns,
        answers=_ANSWERS.get(target.precision, _ANSWERS_QUANTIZED) if spec.output.task in answers.DECODED else None,
    )


def level(spec: Input) -> float:
    """Return the size of one level of an 8-bit picture in the tensor's unit; with one std per channel, the largest."""
    size = 1.0
    for step in spec.steps:
        if isinstance(step, Scale):
            size *= abs(step.factor) if step.factor is not None else 1 / abs(step.divisor or 1.0)
        elif isinstance(step, Std):
            size /= min(step.values)
    return size


def compare(
    golden: GoldenAnswer, picture: Path, preprocessor: Preprocessor, comparison: Comparison
) -> PictureDifferences:
    """Compute a golden picture's tensor and outputs here and return how far they are from the stored ones."""
    name = picture.name
    network, answer = comparison.outputs(golden, golden.tensor, name)
    try:
        tensor = preprocessor(picture)
        measured = deviation(golden.tensor, tensor)
    except (ImageError, CheckError) as error:
        unknown = Difference(math.nan, f"{name}: {error.message}")
        return PictureDifferences(unknown, unknown, network, unknown, answer)
    unit = level(preprocessor.spec)
    largest = Difference(_usable(measured, golden.tensor, measured.max_abs) / unit, name)
    mean = Difference(_usable(measured, golden.tensor, measured.mean_abs) / unit, name)
    return PictureDifferences(largest, mean, network, comparison.outputs(golden, tensor, name)[0], answer)


@dataclass(frozen=True)
class Comparison:
    """How the outputs of a bundle's network are compared with the stored ones."""

    runner: Runner
    spec: Spec
    tolerance: Tolerance

    def outputs(self, golden: GoldenAnswer, tensor: NDArray[Any], name: str) -> tuple[Difference, Difference | None]:
        """Run a tensor; return the largest difference of any output or column, as a share of its largest value if that
        is above 1, and the difference of the decoded answers if these are compared."""
        try:
            outputs = self.runner.infer(tensor[np.newaxis])
        except PlimsollError as error:
            return self._nothing(f"{name}: {error.message}")
        if outputs.keys() != golden.outputs.keys():
            return self._nothing(
                f"{name}: the network's outputs are {sorted(outputs)}, the stored ones {sorted(golden.outputs)}"
            )
        before, after = golden.outputs, outputs
        network = _differences(before, after, name)
        if self.tolerance.columns and math.isfinite(network.value):
            network = _differences(answers.columns(self.spec, before), answers.columns(self.spec, after), name)
        return network, self._answer(before, after, name)

    def _nothing(self, reason: str) -> tuple[Difference, Difference | None]:
        unknown = Difference(math.nan, reason)
        return unknown, None if self.tolerance.answers is None else unknown

    def _answer(
        self, stored: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]], name: str
    ) -> Difference | None:
        if self.tolerance.answers is None:
            return None
        try:
            return Difference(answers.difference(self.spec, stored, outputs), name)
        except PlimsollError as error:
            return Difference(math.nan, f"{name}: {error.message}")


def _differences(golden: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]], name: str) -> Difference:
    """Return the largest difference of any output, as a share of its largest value if that is above 1."""
    differences = []
    for output, stored in golden.items():
        where = f"{name}, output '{output}'"
        try:
            measured = deviation(stored, outputs[output])
        except CheckError as error:
            differences.append(Difference(math.nan, f"{where}: {error.message}"))
            continue
        scale = max(1.0, float(np.abs(stored.astype(np.float64)).max(initial=0.0)))
        differences.append(Difference(_usable(measured, stored, measured.max_abs) / scale, where))
    return worst(differences)


def _usable(measured: TensorDeviation, stored: NDArray[Any], value: float) -> float:
    """Return the value, or NaN if the stored tensor is not finite itself: equal NaNs prove nothing."""
    return value if measured.finite and np.isfinite(stored.astype(np.float64)).all() else math.nan


def worst(differences: Iterable[Difference]) -> Difference:
    """Return the first difference that is NaN or infinite, else the largest; NaN if there is none."""
    largest = Difference(math.nan, "nothing was compared")
    for difference in differences:
        if not math.isfinite(difference.value):
            return difference
        if math.isnan(largest.value) or difference.value > largest.value:
            largest = difference
    return largest


def checks_of(pictures: Sequence[PictureDifferences], tolerance: Tolerance) -> tuple[Check, ...]:
    """Return one check for each of the four tolerances, with the worst picture's difference."""
    stages = [
        ("preprocessing, worst value", [picture.input_max for picture in pictures], tolerance.input_max, "levels"),
        ("preprocessing, mean", [picture.input_mean for picture in pictures], tolerance.input_mean, "levels"),
        ("network", [picture.network for picture in pictures], tolerance.network, ""),
        ("end to end", [picture.end_to_end for picture in pictures], tolerance.end_to_end, ""),
    ]
    if tolerance.answers is not None:
        decoded = [picture.answer for picture in pictures if picture.answer is not None]
        stages.append(("answers", decoded, tolerance.answers, ""))
    return tuple(
        Check(name=name, measured=largest.value, limit=limit, unit=unit, detail=largest.where)
        for name, differences, limit, unit in stages
        for largest in [worst(differences)]
    )


PROOF = "report/report.json"
"""The report in a shipped bundle."""


def verify(bundle: Bundle) -> Report:
    """Run the golden pictures on this machine and compare with the stored tensors; opening has checked the hashes.

    Four checks: preprocessing (worst and mean difference, in picture levels of 255), the network (on the stored
    tensors), and the whole way (pictures to outputs); and a fifth for boxes, masks, points and texts: the decoded
    answers. NaN, infinity, another shape or a picture that is refused here
    fails its check. The measurements say which input step gives other pixels here, what differs between this machine
    and the one where the bundle was packed, and what was proven there.

    Raises BackendMissingError or BuildError if the bundle can't run here at all, BundleError for a damaged tensor,
    ModelError or SpecError where network and Spec don't fit.
    """
    preprocessor = Preprocessor(bundle.spec.input, bundle.preprocessing, bundle.scaled_sides)
    with Runner.open(importers.reread(bundle.model), bundle.target) as runner:
        comparison = Comparison(runner, bundle.spec, bundle.manifest.tolerance)
        differences = []
        for vector in bundle.manifest.golden:
            outputs = {name: bundle.tensor(file) for name, file in vector.outputs.items()}
            answer = GoldenAnswer(bundle.tensor(vector.tensor), outputs)
            differences.append(compare(answer, bundle.file(vector.picture), preprocessor, comparison))
    here = environment()
    measurements = {"pictures": len(differences), "outputs": len(bundle.manifest.golden[0].outputs)}
    return Report(
        kind="verify",
        subject=f"{bundle.name} on {bundle.target} with {bundle.preprocessing} preprocessing",
        environment=here,
        checks=checks_of(differences, bundle.manifest.tolerance),
        measurements={
            **measurements,
            **input_steps(bundle, preprocessor),
            **_proof(bundle),
            **_machine_differences(bundle.manifest.environment, here),
        },
    )


ROUNDING = ("architecture", "instruction_sets", "versions")
"""What changes how networks are computed: if these are the same, most kernels round alike and a proof carries over.
"""
SPEED = ("processor", "cores", "system", "python")
"""What changes the speed."""


def _proof(bundle: Bundle) -> dict[str, str]:
    """Summarize the report in a shipped bundle; empty if it has none."""
    if PROOF not in bundle.manifest.files:
        return {}
    try:
        report = Report.read(bundle.file(PROOF))
    except InputError:
        return {"proof": f"{PROOF} can't be read by this version"}
    passed = sum(check.passed for check in report.checks)
    pictures = report.measurements.get("test pictures")
    sample = f" on {pictures:,} pictures" if isinstance(pictures, int) else ""
    outcome = f"{passed} of {len(report.checks)} limits of the budget kept{sample}"
    return {"proof": f"{report.kind} of {report.subject}: {outcome}"}


def _machine_differences(packed: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, str]:
    """Compare each fact about this machine with the one where the bundle was packed; the first entry is the summary."""
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
