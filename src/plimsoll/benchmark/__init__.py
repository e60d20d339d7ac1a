"""How fast a deployment is, end to end, and whether another one is faster: measured in turns, with an interval, after MLPerf LoadGen's scenarios.

>>> from plimsoll.benchmark import Candidate, bench
>>> outcome = bench([Candidate("reference", load("open_nsfw")), Candidate("fast", load("open_nsfw", steps="fast"))], photos)  # doctest: +SKIP
>>> print(outcome.comparisons[0].sentence())  # doctest: +SKIP
"""

from plimsoll.benchmark.footprint import Footprint, footprint
from plimsoll.benchmark.measure import Candidate, Measured, Outcome, bench
from plimsoll.benchmark.profile import Profile, Stage, profile
from plimsoll.benchmark.rates import MaxRate, Trial, max_rate
from plimsoll.benchmark.results import rates_report, report
from plimsoll.benchmark.scenarios import Offline, Round, Scenario, Server, SingleStream, arrivals
from plimsoll.benchmark.statistics import Comparison, Estimate, compare, estimate, percentile, percentiles

__all__ = [
    "Candidate",
    "Comparison",
    "Estimate",
    "Footprint",
    "MaxRate",
    "Measured",
    "Offline",
    "Outcome",
    "Profile",
    "Round",
    "Scenario",
    "Server",
    "SingleStream",
    "Stage",
    "Trial",
    "arrivals",
    "bench",
    "compare",
    "estimate",
    "footprint",
    "max_rate",
    "percentile",
    "percentiles",
    "profile",
    "rates_report",
    "report",
]
