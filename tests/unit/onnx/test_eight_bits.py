"""The original rounded to 8 bits says how much int8 must lose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from helpers.answer_networks import draw, network, saved, spec_of
from plimsoll.backends.base import Session
from plimsoll.backends.trial_inputs import TriedNetwork, feeds_of
from plimsoll.core.model import Model
from plimsoll.core.target import REFERENCE_TARGET
from plimsoll.errors import BuildError
from plimsoll.onnx import eight_bits
from plimsoll.onnx.answers import ReferenceNetwork
from plimsoll.preprocessing import Preprocessor


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return saved(network("segment"), tmp_path / "segment.onnx", spec_of("segment"))


def tried(model: Model, session: Session) -> TriedNetwork:
    return TriedNetwork(model, session, REFERENCE_TARGET)


def decibels(model: Model, pictures: list[Path]) -> float:
    preprocess = Preprocessor(model.require_spec().input)
    feeds = {"picture": np.stack([preprocess(picture) for picture in pictures])}
    expected, rounded = (
        ReferenceNetwork(model, changed).run(feeds)["masks"] for changed in (None, eight_bits.rounded(model))
    )
    return float(10 * np.log10((expected**2).sum() / ((rounded - expected) ** 2).sum()))


def test_rounding_leaves_much_of_a_plain_network_and_little_where_a_small_difference_counts(
    model: Model, tmp_path: Path
) -> None:
    pictures = draw(tmp_path / "drawn", 4)
    assert 35 < decibels(model, pictures) < 60
    proto = onnx.load(model.path)
    for tensor in proto.graph.initializer:
        if tensor.name == "colour_bias":
            # Values near 500 hold differences of a few: their steps are 2 wide.
            bias = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(bias + np.float32(500), "colour_bias"))
    colours = next(node for node in proto.graph.node if node.name == "colours" or "colours" in node.output)
    colours.output[0] = "far"
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(500), "far_away"))
    position = list(proto.graph.node).index(colours) + 1
    proto.graph.node.insert(position, onnx.helper.make_node("Sub", ["far", "far_away"], ["colours"]))
    assert decibels(saved(proto, tmp_path / "fragile.onnx", spec_of("segment")), pictures) < 25


def test_what_would_stay_as_it_is_has_no_figure(model: Model, tmp_path: Path) -> None:
    proto = onnx.load(model.path)
    proto.opset_import[0].version = 10
    with pytest.raises(BuildError, match="can't be rounded"):
        eight_bits.rounded(saved(proto, tmp_path / "old.onnx", spec_of("segment")))


def test_a_calibrated_network_is_judged_by_the_users_pictures(model: Model, tmp_path: Path) -> None:
    pictures = draw(tmp_path / "drawn", 2)
    network = tried(model, ReferenceNetwork(model))
    preprocess = Preprocessor(model.require_spec().input)
    own, *others = feeds_of(network, network, pictures[:1], calibrated=True)
    np.testing.assert_array_equal(own.source["picture"][0], preprocess(pictures[0]))
    assert (own.unlike, {feeds.unlike for feeds in others}) == (False, {True})
    for given, calibrated in (((), True), (pictures, False)):
        assert not any(feeds.unlike for feeds in feeds_of(network, network, given, calibrated=calibrated))
    assert len(list(feeds_of(network, network, pictures, calibrated=False))) == len(others) + 2
