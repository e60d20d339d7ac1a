"""Figures that compare: tensors with tensors, decisions with decisions, answers with labels. NumPy only."""

from __future__ import annotations

from plimsoll.metrics.tensors import ABSOLUTE_FLOOR, RELATIVE_FLOOR, Running, TensorDeviation, deviation

__all__ = ["ABSOLUTE_FLOOR", "RELATIVE_FLOOR", "Running", "TensorDeviation", "deviation"]
