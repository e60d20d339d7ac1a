"""Make networks smaller and faster with fewer bits: int8 by calibration, int8 as it comes, float16; and find what that
costs where.

`calibrate` runs pictures through the float network and returns a table of ranges; `static` quantizes with it. `collect`
serves several calibration methods by one pass. `sensitivity` ranks operators by the deviation that they cause, and
`mixed` puts the worst back into float.
"""

from __future__ import annotations

from plimsoll.quantize.calibration import Calibration
from plimsoll.quantize.dynamic import dynamic
from plimsoll.quantize.float16 import float16
from plimsoll.quantize.lint import Finding, before_float16, lint
from plimsoll.quantize.observe import Statistics, cached_calibration, calibrate, collect, digest_of
from plimsoll.quantize.options import StaticOptions
from plimsoll.quantize.prepare import prepare
from plimsoll.quantize.ranges import METHODS
from plimsoll.quantize.sensitivity import Mixed, OperatorDeviation, mixed, sensitivity
from plimsoll.quantize.static import reads_bytes, static

__all__ = [
    "METHODS",
    "Calibration",
    "Finding",
    "Mixed",
    "OperatorDeviation",
    "StaticOptions",
    "Statistics",
    "before_float16",
    "cached_calibration",
    "calibrate",
    "collect",
    "digest_of",
    "dynamic",
    "float16",
    "lint",
    "mixed",
    "prepare",
    "reads_bytes",
    "sensitivity",
    "static",
]
