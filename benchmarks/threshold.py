"""How often the intervals of `plimsoll threshold` contain the truth, on simulated reviews with known rates.

    python benchmarks/threshold.py [--repetitions 1000]

Each repetition draws a population anew, its scores and which pictures are bad, reviews a random sample of it, and
asks for four figures: the share of bad ones below 0.3 (they pass), the share of bad ones from 0.8 on, how much of that
band is bad, and how much of everything. Prints a row of coverage for each population and way of sampling.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from plimsoll.metrics.stratified import Cells

POPULATIONS = {"easy": (100_000, 0.05, 3.0), "rare": (100_000, 0.005, 3.0), "weak": (50_000, 0.1, 1.5)}
"""Pictures, share of bad ones, and how far their scores lie from the others', in standard deviations."""
EDGES = (0.1, 0.2, 0.4, 0.6, 0.8, 0.95)
SAMPLES = {
    "stratified": (EDGES, (300, 150, 150, 150, 150, 150, 150)),
    "plain": ((), (1200,)),
    "deep": (EDGES, (2000, 200, 200, 200, 200, 200, 200)),
}
"""Where strata meet, and how many pictures of each are reviewed."""
BANDS = (0.3, 0.8)


def population(size: int, share: float, distance: float, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw a population; return `[fine or bad, cells]`, cells between all edges of strata and bands."""
    bad = generator.random(size) < share
    scores = 1 / (1 + np.exp(-1.5 * (generator.normal(size=size) + distance * bad) + 2.5))
    edges = np.union1d(EDGES, BANDS)
    return np.array(
        [
            np.bincount(np.searchsorted(edges, scores[bad == which], side="right"), minlength=edges.size + 1)
            for which in (False, True)
        ]
    )


def coverage(population_name: str, sample_name: str, repetitions: int) -> dict[str, float]:
    """Return for each figure in which share of the repetitions its interval contains the truth."""
    generator = np.random.default_rng(20_261_201)
    strata, sizes = SAMPLES[sample_name]
    starts = np.concatenate([[0], np.union1d(EDGES, BANDS)])
    stratum, band = np.searchsorted(strata, starts, side="right"), np.searchsorted(BANDS, starts, side="right")
    hits: dict[str, int] = defaultdict(int)
    for _ in range(repetitions):
        whole = population(*POPULATIONS[population_name], generator)
        drawn = np.zeros_like(whole)
        for number, size in enumerate(sizes):
            cells = np.flatnonzero(stratum == number)
            colours = whole[:, cells].ravel()
            sample = generator.multivariate_hypergeometric(colours, min(size, int(colours.sum())))
            drawn[:, cells] = sample.reshape(2, -1)
        # Cells of a stratum and a band, as the command has them.
        keys = stratum * 3 + band
        total, seen, positive = (
            np.bincount(keys, weights=part).astype(np.int64)
            for part in (whole.sum(axis=0), drawn.sum(axis=0), drawn[1])
        )
        group = np.arange(total.size) % 3
        estimated = Cells.of(total, seen, positive)
        bad = np.bincount(keys, weights=whole[1])
        share = [bad[group == number].sum() for number in range(3)]
        figures = {
            "bad that pass": (estimated.part(group == 0), share[0] / sum(share)),
            "recall": (estimated.part(group == 2), share[2] / sum(share)),
            "precision": (estimated.mean(group == 2), share[2] / total[group == 2].sum()),
            "share of bad": (estimated.mean(group >= 0), sum(share) / total.sum()),
        }
        for name, (estimate, truth) in figures.items():
            hits[name] += estimate.low <= truth <= estimate.high
    return {name: count / repetitions for name, count in hits.items()}


def main() -> None:
    """Print the coverage of all populations and samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1000)
    repetitions = parser.parse_args().repetitions
    for population_name in POPULATIONS:
        for sample_name in SAMPLES:
            figures = coverage(population_name, sample_name, repetitions)
            row = ", ".join(f"{name} {share:.1%}" for name, share in figures.items())
            print(f"{population_name:5} {sample_name:10} {row}", flush=True)


if __name__ == "__main__":
    main()
