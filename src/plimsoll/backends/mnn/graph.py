"""Read an MNN file's graph, and change its numbers in place.

An MNN file is a FlatBuffer (schema: MNN's `schema/default/MNN.fbs`, whose field numbers are used here). Only numbers of
fixed size change, so nothing moves and no writer is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.foreign import translate
from plimsoll.core.model import INCOMPLETE, Model, Reader, model_file_size
from plimsoll.errors import BuildError, ModelError
from plimsoll.onnx.signature import signature_files
from plimsoll.spec import Spec
from plimsoll.system.flatbuffer import FlatBuffer, Table

BINARY, CONVOLUTION, CONVOLUTION_DEPTHWISE, RESIZE, POOLING = 7, 12, 13, 35, 47
DECONVOLUTIONS = (17, 18)
PRODUCTS = (39, 106)  # MatMul, BatchMatMul
MOVING = (28, 46, 73, 90, 100, 107, 129)
"""Flatten, Permute, Reshape, Squeeze, Transpose, Unsqueeze, ConvertTensor: what changes the layout alone."""
POOLINGS = (POOLING, 112)
REDUCTION = 68
UNARY = 101
MEASURING = (66, 80, 82)
"""Rank, Shape, Size: what reads of a tensor how large it is alone."""

_FLOAT = 1
_ADD, _SUB, _MUL = 0, 1, 2
_TABLE, _GRID = 2, 4
_SPREADING = (10, 31, 45, 69, 70, 74, 83, 84, 91, 102, 109, 110, 118, 120, RESIZE, *POOLINGS, *MOVING)
"""Concat, Gather, Padding, ReLU, ReLU6, Resize, Slice, SliceTf, StridedSlice, Unpack, DepthToSpace, SpaceToDepth,
ScatterNd, BroadcastTo and so on: over these MNN hands grids on to tensors that have none, forwards and backwards."""
_FLOAT_KINDS = (49, 77, 85, 603)
"""PReLU, Scale, Softmax, LayerNorm"""


class MnnFile(Reader):
    """MNN: one file."""

    name = "mnn"
    suffixes = (".mnn",)

    def read(self, path: Path, spec: Spec | None = None) -> Model:
        """Check that the file begins as a FlatBuffer does; raises ModelError. Only MNN can check what is in it."""
        size = model_file_size(path)
        with path.open("rb") as stream:
            root = int.from_bytes(stream.read(4), "little")
            stream.seek(min(root, size))
            fields = int.from_bytes(stream.read(4), "little", signed=True)
        if not 4 <= root <= size - 4 or not 0 <= root - fields <= size - 4:
            raise ModelError(f"{path}: not an MNN file: it doesn't begin as a FlatBuffer", INCOMPLETE)
        return Model(path, self.name, spec, files=signature_files(path))


@dataclass(frozen=True)
class Operator:
    """An operator of the graph; tensors are numbers."""

    table: Table
    name: str
    kind: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def _main(self) -> Table | None:
        return self.table.table(2)

    @property
    def computes(self) -> bool:
        """Whether it is a convolution or a product of matrices."""
        return self.kind in (CONVOLUTION, CONVOLUTION_DEPTHWISE, *DECONVOLUTIONS, *PRODUCTS)

    @property
    def function(self) -> int | None:
        """Which function of each value alone it computes (`UnaryOpOperation` in MNN's schema); None for all else."""
        main = self._main if self.kind == UNARY else None
        return None if main is None else int(main.number(0))

    @property
    def has_table(self) -> bool:
        """Whether it looks up what it makes of each stored integer; then MNN computes it in int8, come what may."""
        main = self._main if self.kind == UNARY else None
        return main is not None and main.has(_TABLE)

    @property
    def has_relu(self) -> bool:
        """Whether a Relu is fused into it."""
        main = self._main
        if main is None:
            return False
        if self.kind == BINARY:
            return bool(main.number(2) == 1)
        common = main.table(0) if self.kind in (CONVOLUTION, CONVOLUTION_DEPTHWISE) else None
        return common is not None and (common.number(12, "int8") == 1 or common.number(13, "int8") == 1)

    @property
    def spreads(self) -> bool:
        """Whether MNN takes the grid of what it reads for what it makes, and the other way round, where one has
        none."""
        return self.kind in _SPREADING

    @property
    def moves(self) -> bool:
        """Whether what it makes has the grid of what it reads: the same values in other places, or some in between."""
        return self.kind in (RESIZE, *MOVING)

    @property
    def is_exact(self) -> bool:
        """Whether it is a sum, a difference or a product of two tensors."""
        main = self._main
        return self.kind == BINARY and main is not None and main.number(0) in (_ADD, _SUB, _MUL)

    @property
    def runs_in_float(self) -> bool:
        """Whether it is to be computed in float, since MNN's int8 kernel for it was found wrong, or too coarse."""
        if self.kind == BINARY:
            return not self.is_exact
        return self.kind in _FLOAT_KINDS or (self.kind == UNARY and not self.has_table)

    @property
    def weights_are_stored(self) -> bool:
        """Whether it is a convolution whose weights are integers."""
        main = self._main if self.kind in (CONVOLUTION, CONVOLUTION_DEPTHWISE) else None
        return main is not None and main.has(3) and main.has(4)

    def mend_weights(self) -> None:
        """Give rows of weights that are all zero a scale: the tool divides zero by zero there."""
        main = self._main if self.kind in (CONVOLUTION, CONVOLUTION_DEPTHWISE) else None
        weights = main.table(3) if main is not None else None
        if weights is None:
            return
        scales = np.array(weights.numbers(1, "float32"), np.float32)
        if not np.isfinite(scales).all():
            weights.put_vector(1, np.where(np.isfinite(scales), scales, np.float32(0)))

    def set_table(self, values: NDArray[np.int8] | None) -> None:
        """Change what it looks up: 255 stored integers, for −127 to 127; None: have it computed in float."""
        main = self._main
        if main is not None and values is not None:
            main.put_vector(_TABLE, values)
        elif main is not None:
            main.leave_out(_TABLE)

    def drop_relu(self) -> None:
        """Take a fused Relu out of a sum or the like."""
        main = self._main
        if self.kind == BINARY and main is not None and main.has(2):
            main.put(2, 0, "int32")

    def set_grids(self, before: tuple[float, int] | None, after: tuple[float, int] | None) -> None:
        """Tell a quantized convolution the scale and zero point of what it reads and of what it makes."""
        main = self._main if self.kind in (CONVOLUTION, CONVOLUTION_DEPTHWISE) else None
        weights, quantized = (main.table(3), main.table(4)) if main is not None else (None, None)
        if weights is None or quantized is None:
            return
        for grid, scale, zero in ((before, 5, 6), (after, 6, 7)):
            if grid is not None:
                weights.put(scale, grid[0])
                quantized.put(zero, grid[1], "int8")


class Graph:
    """An MNN file's graph."""

    def __init__(self, data: bytearray) -> None:
        self.data = data
        self._net = FlatBuffer(data).root()
        self.names = self._net.texts(7)
        self.operators = [_operator(table) for table in self._net.tables(3)]

    @classmethod
    def read(cls, path: Path) -> Graph:
        """Read a file; raises BuildError for one that is damaged."""
        with translate(BuildError, f"{path.name}: can't be read as an MNN file"):
            return cls(bytearray(path.read_bytes()))

    def write(self, path: Path) -> None:
        """Write the file."""
        path.write_bytes(self.data)

    @cached_property
    def outputs(self) -> list[int]:
        """The outputs; what nobody reads, where the file doesn't name them."""
        named = self._net.texts(4)
        return [
            tensor for tensor in self.makers if (self.names[tensor] in named if named else tensor not in self.readers)
        ]

    @cached_property
    def makers(self) -> dict[int, Operator]:
        """The operator that makes each tensor."""
        return {tensor: operator for operator in self.operators for tensor in operator.outputs}

    @cached_property
    def readers(self) -> dict[int, list[Operator]]:
        """The operators that read each tensor."""
        by_tensor: dict[int, list[Operator]] = {}
        for operator in self.operators:
            for tensor in operator.inputs:
                by_tensor.setdefault(tensor, []).append(operator)
        return by_tensor

    @cached_property
    def quantized(self) -> dict[int, Table]:
        """How each tensor that is quantized is: a table of scale, zero, min, max and type."""
        pairs = ((tensor, described.table(_GRID)) for tensor, described in self._described.items())
        return {tensor: table for tensor, table in pairs if table is not None}

    @cached_property
    def _described(self) -> dict[int, Table]:
        return {described.number(1): described for described in self._net.tables(1)}

    def grid(self, tensor: int) -> tuple[float, float]:
        """Return a quantized tensor's scale and zero point."""
        table = self.quantized[tensor]
        return table.number(0, "float32"), table.number(1, "float32")

    def has_grid(self, tensor: int) -> bool:
        """Tell whether a tensor is quantized, and with a scale that is a number."""
        return tensor in self.quantized and 0 < self.grid(tensor)[0] < math.inf

    def set_grid(self, tensor: int, scale: float, zero: int) -> None:
        """Change them."""
        self.quantized[tensor].put(0, scale)
        self.quantized[tensor].put(1, zero)

    def keep_float(self, tensor: int) -> None:
        """Have a tensor computed in float whose operator reads no quantized ones; it is read in float too."""
        table = self.quantized.pop(tensor)
        table.put(4, _FLOAT, "int32")
        table.put(0, 0)  # A kernel for quantized weights would take any other scale for that of integers.

    def remove_grid(self, tensor: int) -> None:
        """Have a tensor computed and read in float, whatever its operator reads; see `Operator.spreads`."""
        self._described[tensor].leave_out(_GRID)
        self.quantized.pop(tensor)

    def heads(self) -> tuple[list[Operator], set[int]]:
        """Return the operators that are to stay in float, and the tensors that are.

        They are the last convolutions or products before the outputs, what they read where that is an average or a
        change of layout, and all that comes after them. Where there is no other convolution or product they are
        quantized, and only what comes after them is not.
        """
        heads: list[Operator] = []
        after: set[int] = set()
        open_ = list(self.outputs)
        while open_:
            tensor = open_.pop()
            maker = self.makers.get(tensor)
            if maker is None or tensor in after:
                continue
            if maker.computes:
                heads.append(maker)
                continue
            after.add(tensor)
            if maker.kind not in MEASURING:
                open_ += maker.inputs
        if len(heads) == sum(operator.computes for operator in self.operators):
            return [], after
        return heads, after.union(
            *(operator.outputs for operator in heads), *(self._before(operator.inputs[0]) for operator in heads)
        )

    def in_float(self) -> list[Operator]:
        """Return the operators that are to stay in float."""
        heads, tail = self.heads()
        return [operator for operator in self.operators if operator in heads or not tail.isdisjoint(operator.outputs)]

    def _before(self, tensor: int) -> set[int]:
        before: set[int] = set()
        maker = self.makers.get(tensor)
        while maker is not None and (maker.kind in (*MOVING, REDUCTION) or maker.kind in POOLINGS):
            before.add(tensor)
            tensor = maker.inputs[0]
            maker = self.makers.get(tensor)
        return before


def _operator(table: Table) -> Operator:
    return Operator(table, table.text(3), table.number(5), tuple(table.numbers(0)), tuple(table.numbers(4)))
