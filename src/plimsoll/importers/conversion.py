"""Import a model of any framework: convert it to ONNX, and prove that the ONNX network answers as the framework does."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll import importers
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET
from plimsoll.errors import CheckError
from plimsoll.importers.base import Conversion, ImportOptions, Probe
from plimsoll.metrics.tensors import ABSOLUTE_FLOOR, deviation
from plimsoll.spec import Spec

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class OutputParity:
    """How far one output of the ONNX network lies from the framework's."""

    name: str
    relative: float
    """The largest |ONNX - framework| / max(|framework|, floor); the floor is the output's root mean square, since
    float32 rounds in proportion to what was summed up and a value near zero is the rest of larger ones."""
    absolute: float
    """The largest absolute difference."""


@dataclass(frozen=True)
class Parity:
    """What ONNX Runtime and the source's framework answered to the same tensors, compared."""

    framework: str
    outputs: tuple[OutputParity, ...]
    items: int
    """How many inputs were answered."""
    tolerance: float

    @property
    def worst(self) -> OutputParity:
        """The output that lies furthest off."""
        return max(self.outputs, key=lambda output: output.relative)

    @property
    def holds(self) -> bool:
        """Whether every output lies within the tolerance."""
        return self.worst.relative <= self.tolerance

    def __str__(self) -> str:
        worst = self.worst
        among = f" (of {len(self.outputs)} outputs)" if len(self.outputs) > 1 else ""
        return (
            f"{worst.name}{among} differs from {self.framework} by at most {worst.relative:.1e} relative,"
            f" {worst.absolute:.1e} absolute, over {self.items} inputs; the limit is {self.tolerance:.0e}"
        )


@dataclass(frozen=True)
class ImportedModel:
    """A model that was converted, and the proof."""

    model: Model
    """The ONNX network, checked."""
    source: str
    """The kind of file that it came from."""
    parity: Parity | None
    """None where the framework can't answer here; a note says why."""
    notes: tuple[str, ...]


def import_model(
    path: Path, folder: Path, options: ImportOptions | None = None, spec: Spec | None = None
) -> ImportedModel:
    """Convert a model file or folder of any known kind to ONNX in `folder`.

    Raises ModelError or InputError for what was given, BackendMissingError or BuildError where the conversion fails,
    and CheckError where the ONNX network answers otherwise than its framework: such a file is not to be used.
    """
    kind = importers.converter_for(path)
    folder.mkdir(parents=True, exist_ok=True)
    return finish(kind.name, kind.convert(path, folder, options or ImportOptions()), spec)


def from_torch(
    module: torch.nn.Module,
    example: torch.Tensor | Sequence[torch.Tensor],
    *,
    folder: Path | None = None,
    spec: Spec | None = None,
    batch: int | None = None,
) -> ImportedModel:
    """Convert a network that is alive in this process to ONNX, in evaluation mode, with the PyTorch that is installed
    here.

    `example`: what forward takes, the batch first; its values don't matter, its dtypes and sizes do. The batch stays
    free where the network allows it, or is fixed to `batch`. Without `folder` the file is kept until this process ends.
    Raises as `import_model`, and BackendMissingError where torch or onnxscript is not installed.

    >>> import plimsoll
    >>> imported = plimsoll.from_torch(network, torch.zeros(1, 3, 224, 224))  # doctest: +SKIP
    >>> print(imported.parity)  # doctest: +SKIP
    """
    from plimsoll.importers.torch import live

    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="plimsoll-torch-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return finish("PyTorch module", live.convert(module, example, folder, batch), spec)


def finish(source: str, conversion: Conversion, spec: Spec | None = None) -> ImportedModel:
    """Check a converted network as any stranger's, give it its Spec, and hold it against its framework's answers;
    raises as `import_model`."""
    model = importers.read(conversion.path, spec)
    parity = compare(model, conversion.probe) if conversion.probe is not None else None
    if parity is not None and not parity.holds:
        raise CheckError(
            f"{source}: the ONNX network answers otherwise than the network that it was made from: {parity}",
            "Please report this with the model, if you may; until then, export it to ONNX with its own framework.",
        )
    return ImportedModel(model, source, parity, conversion.notes)


def compare(model: Model, probe: Probe) -> Parity:
    """Answer a probe with ONNX Runtime and compare; raises CheckError where an output is missing or has another shape."""
    with Runner.open(model, REFERENCE_TARGET) as runner:
        answers = runner.run(probe.feeds)
    missing = [name for name in probe.answers if name not in answers]
    if missing or not probe.answers:
        raise CheckError(
            f"the ONNX network has no output {', '.join(missing) or 'at all'}; it has: {', '.join(answers)}"
        )
    outputs = tuple(_compare(name, reference, answers[name]) for name, reference in probe.answers.items())
    items = max((len(feed) if feed.ndim else 1 for feed in probe.feeds.values()), default=0)
    return Parity(probe.framework, outputs, items, probe.tolerance)


def _compare(name: str, reference: NDArray[Any], other: NDArray[Any]) -> OutputParity:
    apart = deviation(reference, other)
    if not apart.finite or apart.max_abs == 0 or reference.size == 0:
        return OutputParity(name, apart.max_abs, apart.max_abs)
    exact, actual = reference.astype(np.float64), other.astype(np.float64)
    counted = np.isfinite(exact)
    floor = max(float(np.sqrt(np.mean(exact[counted] ** 2))), ABSOLUTE_FLOOR)
    relative = np.abs(actual[counted] - exact[counted]) / np.maximum(np.abs(exact[counted]), floor)
    return OutputParity(name, float(relative.max()), apart.max_abs)
