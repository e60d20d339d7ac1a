"""Prove that a model answers as its reference does, on pictures, within a budget; and where it doesn't, say which stage
differs.

    run               prove(): from two models and pictures to a Proof
    cascade           prove_cascade(): each network of a cascade, and the whole
    proof             Proof: what was measured, the verdict, the cause
    paired_answers    both models' answers to every picture, also with preprocessing and network exchanged
    comparison        `Comparison`: how decoded answers differ; bounds for what the sample says of all other pictures
    classifications   … of classifiers: flips, scores, right labels
    boxes             … of detectors: which boxes both find, and how far apart they lie
    masks             … of segmentation: mean IoU, boundaries
    points            … of landmarks: normalized mean error
    texts             … of lines of text: character error rate
    outputs           the raw outputs, a head's column by column
    repeats           a few pictures asked again, and all together
    labels            right labels, from a file or from folders
    stages            preprocessing step by step, and the normalization as the first convolution sees it
    layers            the networks layer by layer
"""

from __future__ import annotations

from plimsoll.prove.classifications import compare, default_thresholds
from plimsoll.prove.labels import read_labels
from plimsoll.prove.layers import Layer, compare_layers
from plimsoll.prove.proof import Proof
from plimsoll.prove.run import prove

__all__ = ["Layer", "Proof", "compare", "compare_layers", "default_thresholds", "prove", "read_labels"]
