"""Prove that a model answers as its reference does, on pictures, within a budget; and where it doesn't, say which stage
differs."""

from __future__ import annotations

from plimsoll.prove.run import Layer, Proof, compare, compare_layers, default_thresholds, prove, read_labels

__all__ = ["Layer", "Proof", "compare", "compare_layers", "default_thresholds", "prove", "read_labels"]
