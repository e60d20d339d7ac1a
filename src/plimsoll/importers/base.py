"""The seam between Plimsoll and the training frameworks: what a file in `plimsoll.importers` provides.

A new kind of model file is one new file (or package) there, which names its instance `IMPORTER`; the kinds of one
framework may share a file, whose `IMPORTER` is then a tuple of them. A kind is one of two:

- a `Reader` is read as it is: ONNX, and the runtimes' own formats;
- a `Converter` becomes ONNX first. It converts and lets the framework answer some tensors (a `Probe`); it does not
  compare. `plimsoll.importers.conversion.import_model` lets ONNX Runtime answer the same tensors, compares, checks the ONNX
  file as it checks any stranger's, and gives it the user's Spec: once, for every kind.

Packages from elsewhere add theirs by the entry point group `plimsoll.importers`, which leads to such an instance.

A converter's framework runs in a toolchain (`plimsoll.system.toolchains.run`), or is imported in its methods through
`plimsoll.backends.base.require`. A file that can run code when it is read (a pickle, a Lambda layer) is refused with a
ModelError that names `--trust`, unless `ImportOptions.trust` is set.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.model import ModelFormat
from plimsoll.errors import BuildError


@dataclass(frozen=True)
class ImportOptions:
    """What the user said about a model that is converted; a converter that has no use for something of it says so in a
    note."""

    inputs: tuple[str, ...] = ()
    """The tensors to feed, by the source's names; empty: found."""
    outputs: tuple[str, ...] = ()
    """The tensors to answer with, by the source's names; empty: found."""
    input_shapes: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)
    """Shapes of inputs that the file leaves open, by name, batch axis included; None for a free axis."""
    batch: int | None = None
    """A fixed batch; None leaves it free wherever the source does."""
    trust: bool = False
    """Whether the file may run code: its author is trusted like the author of a program."""
    architecture: str = ""
    """The network that bare weights belong to: a name that the converter knows, or `module:callable` in Python."""
    keep: Path | None = None
    """Where the converter's intermediate form goes (the frozen graph of TensorFlow), for those who want that."""


@dataclass(frozen=True)
class Probe:
    """What the source's own framework answered, in float32 on this machine: what the ONNX network must answer too."""

    framework: str
    """Name and version, for example `TensorFlow 2.21.0`."""
    feeds: Mapping[str, NDArray[Any]]
    """The tensors that were fed, by the names, and in the layouts, of the ONNX network's inputs."""
    answers: Mapping[str, NDArray[Any]]
    """What came back, by the names, and in the layouts, of the ONNX network's outputs."""
    tolerance: float = 1e-4
    """The largest relative error that counts as the same answer; a quantized network's is a step of its output."""

    @classmethod
    def read(cls, file: Path, framework: str, tolerance: float = 1e-4) -> Probe:
        """Read an .npz whose arrays are called `feed NAME` and `answer NAME`, as a toolchain's job leaves it; raises
        BuildError."""
        parts: dict[str, dict[str, NDArray[Any]]] = {"feed": {}, "answer": {}}
        try:
            with np.load(file, allow_pickle=False) as arrays:
                for key in arrays.files:
                    part, _, name = key.partition(" ")
                    parts[part][name] = arrays[key]
        except (OSError, ValueError, KeyError) as error:
            raise BuildError(f"{file}: not the tensors of a probe: {error}") from error
        return cls(framework, parts["feed"], parts["answer"], tolerance)


@dataclass(frozen=True)
class Conversion:
    """What a converter made of a file."""

    path: Path
    """The ONNX file; external weights lie beside it or below its folder."""
    probe: Probe | None
    """None only where the framework itself can't answer here; a note says why."""
    notes: tuple[str, ...] = ()
    """What the user should know, a sentence each: what was chosen, folded away, left out."""


class Converter(ModelFormat):
    """A kind of model file that becomes ONNX first."""

    @abstractmethod
    def convert(self, path: Path, folder: Path, options: ImportOptions) -> Conversion:
        """Write the network as ONNX into `folder` (and nowhere else, but for `options.keep`), in inference mode, and
        let the framework answer a probe.

        Inputs and outputs keep the source's names and layouts. The batch is free where the source allows it. The path
        is not changed. Raises ModelError for the file, InputError for options that don't fit it (naming what there is),
        BackendMissingError or BuildError for the framework.
        """
