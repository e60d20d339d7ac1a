"""Prove that a model answers as its reference does, on pictures, within a budget; and where it doesn't, say which stage
differs.

    run               prove(): from two models and pictures to a Proof
    proof             Proof: what was measured, the verdict, the cause
    paired_answers    both models' answers to every picture, also with preprocessing and network exchanged
    comparison        what changed in the decisions, what the sample says of all other pictures; right labels
    stages            preprocessing step by step, and the normalization as the first convolution sees it
    layers            the networks layer by layer
"""

from __future__ import annotations

from plimsoll.prove.comparison import compare, default_thresholds, read_labels
from plimsoll.prove.layers import Layer, compare_layers
from plimsoll.prove.proof import Proof
from plimsoll.prove.run import prove

__all__ = ["Layer", "Proof", "compare", "compare_layers", "default_thresholds", "prove", "read_labels"]
