"""ONNX's operators as PyTorch computes them, by ONNX's definitions (docs: onnx/docs/Operators.md). Imported only where
PyTorch is."""

from __future__ import annotations

from plimsoll.backends.torch.operators import elementwise, layers, shapes
from plimsoll.backends.torch.operators.values import Node, Operator, Stored, Value, known, tensor

OPERATORS: dict[str, Operator] = {**elementwise.OPERATORS, **layers.OPERATORS, **shapes.OPERATORS}
"""By ONNX's names."""

__all__ = ["OPERATORS", "Node", "Operator", "Stored", "Value", "known", "tensor"]
