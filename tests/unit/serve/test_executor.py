"""A worker's batches, whatever axis the network has for its pictures: each request gets its own answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers.axis_networks import bright_pixels, sequence, spec
from plimsoll.core.model import Model
from plimsoll.inference.predictor import Predictor, ResolvedModel
from plimsoll.serve.executor import ModelExecutor, PictureItem, TensorItem


@pytest.mark.parametrize(
    ("write", "axis"), [(bright_pixels, '"none"'), (lambda path: sequence(path, ["T", "N", 3]), "1")]
)
def test_pictures_and_tensors_of_one_batch(
    tmp_path: Path, example_photos: list[Path], write: Callable[[Path], Path], axis: str
) -> None:
    model = Model(write(tmp_path / "network.onnx"), "onnx", spec(f'task = "tensor"\nbatch_axis = {axis}'))
    photos = example_photos[:3]
    with Predictor(ResolvedModel(model)) as predictor:
        tensors = [predictor.prepare(photo)[0] for photo in photos]
        expected = [predictor.predict(photo).row() for photo in photos]
    executor = ModelExecutor(ResolvedModel(model), 1, {})
    try:
        executor.warm_up(2)
        items = [
            PictureItem(prepared=executor.prepare(photo.read_bytes()), raw=number == 1)
            for number, photo in enumerate(photos)
        ]
        executor.run_pictures(items)
        assert [item.row for item in items if not item.raw] == [expected[0], expected[2]]
        assert items[1].outputs is not None
        assert items[1].outputs["y"][0].tolist() == expected[1]["outputs"]["y"]
        fed = [TensorItem(feeds={"x": tensor[np.newaxis]}) for tensor in tensors]
        executor.run_tensors(fed)
        assert [item.outputs and item.outputs["y"][0].tolist() for item in fed] == [
            row["outputs"]["y"] for row in expected
        ]
        if axis == '"none"':
            together = TensorItem(feeds={"x": np.stack(tensors)})
            executor.run_tensors([together])
            assert together.problem is not None
            assert "another shape for each picture" in together.problem.message
    finally:
        executor.close()
