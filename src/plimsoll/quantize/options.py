"""How a network is to be quantized, and what suits the processor and the runtime."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

from plimsoll.core.target import Target
from plimsoll.errors import InputError
from plimsoll.quantize.parameters import ActivationType, Symmetry, WeightMethod
from plimsoll.quantize.placement import OPERATORS
from plimsoll.system import host

_DEFAULT_TARGET = Target("onnxruntime", "cpu", "int8")


@dataclass(frozen=True)
class StaticOptions:
    """Options of `static`. The defaults suit ONNX Runtime on this processor; `for_target` gives what suits a target."""

    operators: tuple[str, ...] = OPERATORS
    """Which kinds of operators are quantized."""
    keep_float: tuple[str, ...] = ()
    """Operators that stay in float, by name (by their first output's where they have none)."""
    float_heads: bool = True
    """Keep the last convolutions or products before the outputs in float, and all after them."""
    activations: ActivationType | None = None
    """None: as the processor prefers, uint8 on x86 and int8 elsewhere."""
    symmetry: Symmetry | None = None
    """Grids around zero for activations that are negative too: `auto` decides by the range. None: as the calibration
    table says."""
    weights: WeightMethod = "mse"
    """The end of each channel's grid: its largest weight, or the one with the least mean squared error."""
    weight_bits: Literal[7, 8] | None = None
    """None: 7 where int8 products would saturate on this processor, else 8."""
    bias: Literal["int32", "float32"] = "int32"
    """ONNX Runtime computes the same with both; OpenVINO adds a float32 one more exactly."""
    target: Target = _DEFAULT_TARGET
    """Where the network will run; `mixed` measures there."""
    space_to_depth: bool = True
    """Let a first convolution with stride 2 read squares of 2 × 2 pixels as one: exact, and faster in ONNX Runtime."""
    hold_averages: bool = False
    """Keep an average that is in float from being rounded to the 8-bit grid of what it averages, as OpenVINO does to
    save a conversion."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.operators if name not in OPERATORS]
        if unknown:
            raise InputError(
                f"operators {', '.join(unknown)} can't be quantized", f"Choose among {', '.join(OPERATORS)}."
            )

    @classmethod
    def for_target(cls, target: Target) -> Self:
        """Return what runs fastest, with the least deviation, on a target."""
        options = cls(target=target)
        if target.device == "gpu":
            # NVIDIA's int8 kernels know no zero point; what is left in float there wants its bias in float.
            return replace(
                options, activations="int8", symmetry="always", weight_bits=8, bias="float32", space_to_depth=False
            )
        if target.runtime == "openvino":
            # Its first convolution gains nothing from fewer, deeper pixels, and pays for moving them.
            return replace(options, bias="float32", space_to_depth=False, hold_averages=True)
        return options

    def with_symmetry(self, symmetry: Symmetry) -> Self:
        """Return the options with this symmetry."""
        return replace(self, symmetry=symmetry)

    def settled(self) -> Self:
        """Return the options with the choices that this processor makes filled in."""
        processor = host.capabilities()
        activations = self.activations or ("uint8" if processor.x86 else "int8")
        bits = self.weight_bits or (7 if activations == "uint8" and processor.int8_saturates else 8)
        return replace(self, activations=activations, weight_bits=bits)
