"""Import a model of any framework: convert it to ONNX, then verify that ONNX Runtime answers as the framework does."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll import importers
from plimsoll.backends.runner import Runner
from plimsoll.core.deviation import deviation
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET
from plimsoll.errors import CheckError
from plimsoll.importers.base import Conversion, ImportOptions, Probe
from plimsoll.spec import Spec

if TYPE_CHECKING:
    import torch


LEAST_FLOOR = 1e-3
"""With a tolerance of 1e-4, differences below 1e-7 count as none: float32 holds what is near 1 no better."""
AMPLIFIED, MOST_AMPLIFIED = 8, 2e-2
"""What a rounding of the input changes may be exceeded this many times, since every layer rounds; and never this."""
_ROUNDINGS = 3
"""How often the input is rounded anew."""


@dataclass(frozen=True)
class OutputParity:
    """How far one output of the ONNX network is from the framework's."""

    name: str
    relative: float
    """The largest |ONNX - framework| / max(|framework|, floor); the floor is the output's root mean square, since
    float32 rounds in proportion to the terms of a sum, and a value near zero is the difference of larger ones; and no
    less than `LEAST_FLOOR`: an output that is all but zero is computed from values that are not."""
    absolute: float
    """The largest absolute difference."""
    overall: float = 0.0
    """The root mean square of the differences, relative to the output's."""
    amplified: float = 0.0
    """The largest relative difference that the last bit of its input makes in the ONNX network itself; measured where
    `relative` exceeds the tolerance, else 0."""

    def within(self, tolerance: float) -> bool:
        """Whether the output is the framework's. Where single values hang on the input's last bit (a mask's edge behind
        large factors), they may be further apart than the tolerance, but the output as a whole may not."""
        if self.relative <= tolerance:
            return True
        return self.overall <= tolerance and self.relative <= min(AMPLIFIED * self.amplified, MOST_AMPLIFIED)


@dataclass(frozen=True)
class Parity:
    """ONNX Runtime's answers to a probe, compared with the framework's."""

    framework: str
    outputs: tuple[OutputParity, ...]
    items: int
    """The number of inputs answered."""
    tolerance: float

    @property
    def worst(self) -> OutputParity:
        """The output with the largest relative error, of those that exceed their limit if any does."""
        return max(self.outputs, key=lambda output: (not output.within(self.tolerance), output.relative))

    @property
    def holds(self) -> bool:
        """Whether every output is within its limit."""
        return all(output.within(self.tolerance) for output in self.outputs)

    def __str__(self) -> str:
        worst = self.worst
        count = f" (of {len(self.outputs)} outputs)" if len(self.outputs) > 1 else ""
        return (
            f"{worst.name}{count} differs from {self.framework} by at most {worst.relative:.1e} relative,"
            f" {worst.absolute:.1e} absolute, over {self.items} inputs; the limit is {self.tolerance:.0e}{self._why()}"
        )

    def _why(self) -> str:
        worst = self.worst
        if not worst.amplified:
            return ""
        return (
            f" for the output as a whole, which differs by {worst.overall:.1e}: the input's last bit alone changes"
            f" single values by {worst.amplified:.1e}"
        )


@dataclass(frozen=True)
class ImportedModel:
    """A converted model, and the evidence that it is right."""

    model: Model
    """The ONNX network, checked."""
    source: str
    """The format that it was converted from."""
    parity: Parity | None
    """None if the framework can't run here; a note says why."""
    notes: tuple[str, ...]


def import_model(
    path: Path, folder: Path, options: ImportOptions | None = None, spec: Spec | None = None
) -> ImportedModel:
    """Convert a model file or folder of any known format to ONNX in `folder`.

    Raises ModelError or InputError for the arguments, BackendMissingError or BuildError if the conversion fails,
    and CheckError if the ONNX network's answers differ from the framework's: don't use such a file.
    """
    converter = importers.converter_for(path)
    folder.mkdir(parents=True, exist_ok=True)
    return finish(converter.name, converter.convert(path, folder, options or ImportOptions()), spec)


def from_torch(
    module: torch.nn.Module,
    example: torch.Tensor | Sequence[torch.Tensor],
    *,
    folder: Path | None = None,
    spec: Spec | None = None,
    batch: int | None = None,
) -> ImportedModel:
    """Convert a PyTorch module of this process to ONNX, in evaluation mode, with the PyTorch that is installed here.

    `example` is what forward takes, with the batch as its first axis; its dtypes and sizes matter, its values don't.
    The batch stays free if the network allows it, or is fixed to `batch`. Without `folder`, the file is deleted when
    this process ends.
    Raises as `import_model`, and BackendMissingError if torch or onnxscript is not installed.

    >>> import plimsoll
    >>> imported = plimsoll.from_torch(network, torch.zeros(1, 3, 224, 224))  # doctest: +SKIP
    >>> print(imported.parity)  # doctest: +SKIP
    """
    from plimsoll.importers.torch import importer

    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="plimsoll-torch-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return finish("PyTorch module", importer.convert(module, example, folder, batch), spec)


def finish(source: str, conversion: Conversion, spec: Spec | None = None) -> ImportedModel:
    """Check a converted network as any untrusted file, attach its Spec, and compare it with the framework's answers;
    raises as `import_model` does."""
    model = importers.read(conversion.path, spec)
    # The framework's answers are those of the network with all of its inputs.
    bare = importers.read(conversion.path) if spec is not None and spec.input.extra else model
    parity = compare(bare, conversion.probe) if conversion.probe is not None else None
    if parity is not None and not parity.holds:
        raise CheckError(
            f"{source}: the ONNX network's answers differ from the original's: {parity}",
            "Please report this, with the model if you can; meanwhile, export it to ONNX with its own framework.",
        )
    return ImportedModel(model, source, parity, conversion.notes)


def compare(model: Model, probe: Probe) -> Parity:
    """Answer a probe with ONNX Runtime and compare; raises CheckError if an output is missing or has another
    shape."""
    with Runner.open(replace(model, spec=None), REFERENCE_TARGET) as runner:
        answers = runner.run(probe.feeds)
        missing = [name for name in probe.answers if name not in answers]
        if missing or not probe.answers:
            raise CheckError(
                f"the ONNX network has no output {', '.join(missing) or 'to compare'}; it has: {', '.join(answers)}"
            )
        outputs = tuple(_compare(name, reference, answers[name]) for name, reference in probe.answers.items())
        if any(output.relative > probe.tolerance >= output.overall for output in outputs):
            rounded = [runner.run(_rounded(probe.feeds, seed)) for seed in range(_ROUNDINGS)]
            outputs = tuple(
                output
                if output.relative <= probe.tolerance
                else replace(output, amplified=max(_apart(answers, other, output.name) for other in rounded))
                for output in outputs
            )
    items = max((len(feed) if feed.ndim else 1 for feed in probe.feeds.values()), default=0)
    return Parity(probe.framework, outputs, items, probe.tolerance)


def _compare(name: str, reference: NDArray[Any], other: NDArray[Any]) -> OutputParity:
    apart = deviation(reference, other)
    if not apart.finite or apart.max_abs == 0 or reference.size == 0:
        return OutputParity(name, apart.max_abs, apart.max_abs, apart.max_abs)
    exact, actual = reference.astype(np.float64), other.astype(np.float64)
    counted = np.isfinite(exact)
    floor = max(float(np.sqrt(np.mean(exact[counted] ** 2))), LEAST_FLOOR)
    relative = np.abs(actual[counted] - exact[counted]) / np.maximum(np.abs(exact[counted]), floor)
    overall = float(np.sqrt(np.mean((actual[counted] - exact[counted]) ** 2))) / floor
    return OutputParity(name, float(relative.max()), apart.max_abs, overall)


def _apart(answers: Mapping[str, NDArray[Any]], others: Mapping[str, NDArray[Any]], name: str) -> float:
    return _compare(name, answers[name], others[name]).relative


def _rounded(feeds: Mapping[str, NDArray[Any]], seed: int) -> dict[str, NDArray[Any]]:
    """Return the feeds with the last bit of each number moved up or down by chance."""
    chance = np.random.default_rng(seed)

    def moved(feed: NDArray[Any]) -> NDArray[Any]:
        if feed.dtype.kind != "f":
            return feed
        way = np.where(chance.random(feed.shape) < 0.5, -np.inf, np.inf).astype(feed.dtype)
        return np.asarray(np.nextafter(feed, way))

    return {name: moved(feed) for name, feed in feeds.items()}
