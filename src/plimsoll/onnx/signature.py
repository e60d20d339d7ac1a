"""`Signature`: a network's inputs and outputs, stored beside files of formats that lack them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from plimsoll.core.model import Model, TensorInfo
from plimsoll.core.wording import explain
from plimsoll.errors import BuildError
from plimsoll.onnx import load
from plimsoll.system import files

SUFFIX = ".signature.json"
MAX_BYTES = 1_000_000


class _Tensor(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    shape: tuple[int | None, ...]
    dtype: str


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    inputs: tuple[_Tensor, ...] = Field(min_length=1)
    outputs: tuple[_Tensor, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs as the ONNX network has them, in its order."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    @classmethod
    def of(cls, model: Model) -> Self:
        """Return the signature of an ONNX network, with inferred sizes. Raises ModelError."""
        graph = load.infer_shapes(model).graph
        return cls(tuple(map(_info, load.inputs(graph))), tuple(map(_info, graph.output)))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read it from its JSON file; raises BuildError."""
        try:
            data = _File.model_validate_json(files.read_bytes(path, MAX_BYTES))
        except (OSError, ValidationError) as error:
            reason = error.strerror if isinstance(error, OSError) else explain(error)
            raise BuildError(
                f"{path}: can't be read as the signature of a network: {reason}", "Convert the ONNX network again."
            ) from error
        return cls(
            tuple(TensorInfo(**dict(tensor)) for tensor in data.inputs),
            tuple(TensorInfo(**dict(tensor)) for tensor in data.outputs),
        )

    def write(self, path: Path) -> Path:
        """Write it as JSON."""
        data = {
            "inputs": [vars(tensor) for tensor in self.inputs],
            "outputs": [vars(tensor) for tensor in self.outputs],
        }
        path.write_text(json.dumps(data, indent=1), encoding="utf-8")
        return path


def signature_files(path: Path) -> tuple[Path, ...]:
    """Return the signature that lies beside a model file, as one of the files that belong to it; empty without one."""
    beside = path.with_name(path.name + SUFFIX)
    return (beside,) if beside.is_file() else ()


def signature_of(model: Model) -> Signature:
    """Return the signature that was written beside a converted network; raises BuildError if there is none."""
    beside = next((file for file in model.files if file.name.endswith(SUFFIX)), None)
    if beside is None:
        raise BuildError(
            f"{model.source}: no *{SUFFIX} beside it describes the network's inputs and outputs",
            "Give the ONNX network; Plimsoll converts it and writes that file.",
        )
    return Signature.read(beside)


def _info(value: Any) -> TensorInfo:
    shape = load.shape_of(value) or ()
    return TensorInfo(
        value.name, tuple(size if isinstance(size, int) else None for size in shape), load.dtype_of(value)
    )
