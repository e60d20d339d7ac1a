"""The main job: try candidate deployments, prove and measure each on the user's images, and pack the fastest inside the
budget.

search      `Search`, one run: explore, final benchmark, test, result
cascade     `CascadeSearch`: the networks of a cascade, each by itself and then the whole
config      `SearchConfig`: what the user asks; default targets
strategy    the search space; which candidates are tried in which order, and which wins
split       calibration, validation and test part of the images
job_runner  `JobRunner`: runs jobs in processes of their own, and prepares what candidates are built from
jobs        jobs that answer pictures with candidates and measure them
preparation jobs that calibrate, write tensors, rank layers; `convert` builds one candidate without a search
build       the network of a candidate
export      the bundle and the report
sharing     what a bundle's report may say of the user's pictures and folders
store       the work folder, from which a stopped run resumes
results     the parts of the result, `plimsoll.report.ship_result`
"""

from __future__ import annotations

from plimsoll.report.ship_result import ShipResult
from plimsoll.report.trial import Candidate, Trial
from plimsoll.ship.config import (
    CALIBRATORS,
    OBJECTIVES,
    REFERENCE,
    SearchConfig,
    all_targets,
    default_targets,
    missing_toolchains,
)
from plimsoll.ship.export import Export, Pictures, export
from plimsoll.ship.search import Search

__all__ = [
    "CALIBRATORS",
    "OBJECTIVES",
    "REFERENCE",
    "Candidate",
    "Export",
    "Pictures",
    "Search",
    "SearchConfig",
    "ShipResult",
    "Trial",
    "all_targets",
    "default_targets",
    "export",
    "missing_toolchains",
]
