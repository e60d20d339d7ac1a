"""The interface between Plimsoll and the training frameworks: what a module in `plimsoll.importers` provides.

A new format is one new module or package there, with an instance called `IMPORTER`; a module for several formats of one
framework has a tuple of instances. There are two kinds:

- a `Reader` reads a file as it is: ONNX, and the runtimes' own formats;
- a `Converter` writes ONNX first, and lets the framework answer a few tensors (a `Probe`). It doesn't compare:
  `plimsoll.importers.conversion.import_model` has ONNX Runtime answer the same tensors, compares, checks the ONNX file
  as it would any untrusted one, and attaches the user's Spec, once for all formats.

Other packages register theirs under the entry point group `plimsoll.importers`.

A converter's framework runs in a toolchain (`plimsoll.system.toolchains.run`), or is imported in its methods through
`plimsoll.core.foreign.require`. A file that can run code when it is read (a pickle, a Lambda layer) is refused with a
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
    """The user's options for a conversion; a converter that ignores one says so in a note."""

    inputs: tuple[str, ...] = ()
    """Input tensors by their names in the source; empty: detected."""
    outputs: tuple[str, ...] = ()
    """Output tensors by their names in the source; empty: detected."""
    input_shapes: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)
    """Shapes of inputs that the file leaves open, by name, including the batch axis; None for a free axis."""
    batch: int | None = None
    """A fixed batch size; None leaves it free wherever the source does."""
    trust: bool = False
    """Whether the file may run code, as a program of its author would."""
    architecture: str = ""
    """The network that bare weights belong to: a name the converter knows, or `module:callable` in Python."""
    keep: Path | None = None
    """Where to write the converter's intermediate form (TensorFlow's frozen graph), if set."""


@dataclass(frozen=True)
class Probe:
    """The framework's own answers, in float32 on this machine; the ONNX network must give the same."""

    framework: str
    """Name and version, for example `TensorFlow 2.21.0`."""
    feeds: Mapping[str, NDArray[Any]]
    """The tensors that were fed, with the names and layouts of the ONNX network's inputs."""
    answers: Mapping[str, NDArray[Any]]
    """The answers, with the names and layouts of the ONNX network's outputs."""
    tolerance: float = 1e-4
    """The largest relative error that still counts as equal; for a quantized network, one step of its output."""

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
    """The result of a converter."""

    path: Path
    """The ONNX file; its external weights are in its folder or below."""
    probe: Probe | None
    """None only where the framework can't run here; a note says why."""
    notes: tuple[str, ...] = ()
    """What the user should know, one sentence each: what was detected, folded away or left out."""


class Converter(ModelFormat):
    """A format that is converted to ONNX first."""

    @abstractmethod
    def convert(self, path: Path, folder: Path, options: ImportOptions) -> Conversion:
        """Write the network as ONNX into `folder` (and nowhere else, except `options.keep`), in inference mode, and
        let the framework answer a probe.

        Inputs and outputs keep the source's names and layouts. The batch is free if the source allows it. The source
        is not modified. Raises ModelError for the file, InputError for options that don't fit it (naming the choices),
        BackendMissingError or BuildError for the framework.
        """
