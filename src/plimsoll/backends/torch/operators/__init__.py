"""ONNX's operators as PyTorch computes them, by ONNX's definitions (docs: onnx/docs/Operators.md). Imported only where
PyTorch is."""

from __future__ import annotations

from plimsoll.backends.torch.operators.registry import OPERATORS, Node, Stored, Value, tensor

__all__ = ["OPERATORS", "Node", "Stored", "Value", "tensor"]
