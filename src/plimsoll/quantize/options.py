"""How a network is to be quantized, and what suits the processor and the runtime."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from plimsoll import backends
from plimsoll.backends.base import QuantizationDefaults
from plimsoll.core.target import REFERENCE_TARGET, Target
from plimsoll.errors import InputError
from plimsoll.quantize.parameters import Symmetry, WeightMethod
from plimsoll.quantize.placement import OPERATORS
from plimsoll.system import host

_DEFAULT_TARGET = replace(REFERENCE_TARGET, precision="int8")


@dataclass(frozen=True)
class StaticOptions(QuantizationDefaults):
    """Options of `static`. `for_target` gives what suits a runtime; by itself it is what suits the reference's."""

    operators: tuple[str, ...] = OPERATORS
    """Which kinds of operators are quantized."""
    keep_float: tuple[str, ...] = ()
    """Operators that stay in float, by name (by their first output's where they have none)."""
    float_heads: bool = True
    """Keep the last convolutions or products before the outputs in float, and all after them."""
    weights: WeightMethod = "mse"
    """The end of each channel's grid: its largest weight, or the one with the least mean squared error."""
    target: Target = _DEFAULT_TARGET
    """Where the network will run; `mixed` measures there."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.operators if name not in OPERATORS]
        if unknown:
            raise InputError(
                f"operators {', '.join(unknown)} can't be quantized", f"Choose among {', '.join(OPERATORS)}."
            )

    @classmethod
    def for_target(cls, target: Target) -> Self:
        """Return what runs fastest, with the least deviation, on a target."""
        return cls(target=target, **vars(backends.get(target.runtime).quantization(target)))

    def with_symmetry(self, symmetry: Symmetry) -> Self:
        """Return the options with this symmetry."""
        return replace(self, symmetry=symmetry)

    def settled(self) -> Self:
        """Return the options with the choices that this processor makes filled in."""
        processor = host.capabilities()
        activations = self.activations or ("uint8" if processor.x86 else "int8")
        bits = self.weight_bits or (7 if activations == "uint8" and processor.int8_saturates else 8)
        return replace(self, activations=activations, weight_bits=bits)
