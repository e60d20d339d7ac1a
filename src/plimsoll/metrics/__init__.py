"""What comparisons measure, with NumPy only.

tensors      how far tensors lie apart: largest and mean difference, cosine, signal to noise
decisions    flips with exact bounds, the deviation of scores, rank correlation, bootstrapped bounds
average_precision  precision over recall of detectors, with a weight for each picture
labelled     accuracy, precision, recall, AUC and top-k of two models on labelled pictures
"""

from __future__ import annotations

from plimsoll.metrics.tensors import ABSOLUTE_FLOOR, RELATIVE_FLOOR, RunningDeviation, TensorDeviation, deviation

__all__ = ["ABSOLUTE_FLOOR", "RELATIVE_FLOOR", "RunningDeviation", "TensorDeviation", "deviation"]
