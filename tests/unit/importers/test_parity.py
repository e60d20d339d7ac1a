"""When a converted network counts as right: its answers are the framework's, but for what rounding does to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from plimsoll.core.model import Model
from plimsoll.importers.base import Probe
from plimsoll.importers.conversion import compare
from plimsoll.onnx.writer import GraphWriter

COUNT = 10_000


def network(path: Path, factors: NDArray[np.float32]) -> Model:
    """`(x - 1) * factors`: where a factor is large, the last bit of x is a large part of the answer."""
    graph = GraphWriter("net")
    value = graph.input("x", ("N", COUNT))
    value = graph.add("Sub", [value, graph.constant("one", np.ones(1, np.float32))], "less")
    value = graph.add("Mul", [value, graph.constant("factors", factors)], "product")
    graph.output(value, "y", ("N", COUNT))
    return Model(graph.save(path), "onnx")


@pytest.mark.parametrize(
    ("amplifies", "wrong", "holds"),
    [(True, 1, True), (False, 1, False), (True, COUNT // 2, False)],
    ids=["one value behind a large factor", "one value", "half of the values"],
)
def test_a_value_may_differ_by_what_rounding_does_and_an_output_may_not(
    amplifies: bool, wrong: int, holds: bool, tmp_path: Path
) -> None:
    factors = np.ones(COUNT, np.float32)
    pixels = np.random.default_rng(1).uniform(1, 2, (2, COUNT)).astype(np.float32)
    if amplifies:
        factors[0], pixels[:, 0] = 1e4, 1.0001
    answer = (pixels - 1) * factors
    answer[:, :wrong] += 3e-3
    parity = compare(network(tmp_path / "net.onnx", factors), Probe("framework 1", {"x": pixels}, {"y": answer}))
    assert parity.worst.relative > parity.tolerance
    assert parity.holds is holds
    assert ("last bit" in str(parity)) is (wrong == 1)
