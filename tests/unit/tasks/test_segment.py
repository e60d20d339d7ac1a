"""Masks: what label a pixel gets, how masks are written down, and what is refused."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from plimsoll.errors import InputError, ModelError
from plimsoll.preprocessing import ImageGeometry
from plimsoll.spec.files import validate
from plimsoll.tasks import decoder
from plimsoll.tasks.segment import NO_LABEL, LabelMap, SegmentTask, labels_at

Array = NDArray[Any]
LABELS = ["sky", "sea", "sand"]


def task(**output: Any) -> SegmentTask:
    segmenter = decoder(
        validate(
            {
                "name": "it",
                "input": {"steps": [{"step": "decode"}]},
                "output": {"task": "segment", "labels": LABELS, **output},
            }
        )
    )
    assert isinstance(segmenter, SegmentTask)
    return segmenter


def geometry(width: int, height: int) -> ImageGeometry:
    """A picture stretched to 40 x 30."""
    return ImageGeometry(width, height, 40, 30, (width / 40, height / 30), (0.0, 0.0), (0.0, 0.0, width, height))


def bilinear(values: Array, width: int, height: int) -> Array:
    """Enlarge `[h, w, planes]` pixel by pixel, half-pixel centres and repeated border: the rule, written plainly."""
    rows, columns, planes = values.shape
    out = np.zeros((height, width, planes))
    for y in range(height):
        for x in range(width):
            at_y, at_x = (y + 0.5) * rows / height - 0.5, (x + 0.5) * columns / width - 0.5
            first_y, first_x = int(np.floor(at_y)), int(np.floor(at_x))
            for dy, share_y in ((0, 1 - (at_y - first_y)), (1, at_y - first_y)):
                for dx, share_x in ((0, 1 - (at_x - first_x)), (1, at_x - first_x)):
                    cell = values[min(max(first_y + dy, 0), rows - 1), min(max(first_x + dx, 0), columns - 1)]
                    out[y, x] += share_y * share_x * cell
    return out


@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(1, 25), st.integers(1, 25)),
    st.integers(1, 4),
)
def test_labels_are_decided_on_interpolated_values(
    seed: int, cells: tuple[int, int], size: tuple[int, int], planes: int
) -> None:
    """The shortcut over cells of one label changes nothing."""
    values = np.random.default_rng(seed).normal(size=(*cells, planes)).astype(np.float32)
    plain = bilinear(values.astype(np.float64), *size)
    if planes == 1:
        expected, sure = (plain[:, :, 0] >= 0.1).astype(int), np.abs(plain[:, :, 0] - 0.1) > 1e-5
        labels = labels_at(
            values,
            _at(size[0], cells[1]),
            _at(size[1], cells[0]),
            lambda scores: (scores[..., 0] >= np.float32(0.1)).astype(np.uint16),
        )
    else:
        best = np.sort(plain, axis=2)
        expected, sure = plain.argmax(axis=2), best[:, :, -1] - best[:, :, -2] > 1e-5
        labels = labels_at(
            values,
            _at(size[0], cells[1]),
            _at(size[1], cells[0]),
            lambda scores: scores.argmax(axis=-1).astype(np.uint16),
        )
    np.testing.assert_array_equal(labels[sure], expected[sure])


def _at(pixels: int, cells: int) -> Array:
    return (np.arange(pixels) + 0.5) * (cells / pixels)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("activation", ["none", "softmax", "sigmoid"])
def test_the_largest_plane_is_the_label(layout: str, activation: str) -> None:
    planes = np.random.default_rng(3).normal(size=(2, 15, 20, 3)).astype(np.float32)
    raw = planes if layout == "NHWC" else planes.transpose(0, 3, 1, 2)
    answers = task(layout=layout, activation=activation).decode({"x": raw}, geometries=[geometry(80, 60)] * 2)
    for answer, plane in zip(answers, planes, strict=True):
        np.testing.assert_array_equal(answer.pixels(), bilinear(plane, 80, 60).argmax(axis=2))
    alone = task(layout=layout).decode({"x": raw})[0]
    np.testing.assert_array_equal(alone.pixels(), planes[0].argmax(axis=2))


@pytest.mark.parametrize("shape", [(1, 15, 20), (1, 1, 15, 20)])
def test_a_single_plane_has_a_threshold(shape: tuple[int, ...]) -> None:
    logits = np.random.default_rng(4).normal(size=shape).astype(np.float32)
    there = logits.reshape(15, 20) >= 1.0986123  # logit of 0.75
    for labels, below, above in ((["object"], NO_LABEL, 0), (["nothing", "object"], 0, 1)):
        segmenter = task(labels=labels, activation="sigmoid", threshold=0.75)
        np.testing.assert_array_equal(segmenter.decode({"x": logits})[0].pixels(), np.where(there, above, below))
        assert segmenter.decode({"x": logits}, 0.0)[0].shares == {"object": 1.0}
    row = task(labels=["object"], activation="sigmoid").decode({"x": np.full(shape, -5, np.float32)})[0]
    assert row.row() == {"mask": {"size": [15, 20], "labels": [], "rle": {}}}
    assert row.brief() == "no label"
    assert row.readings() == ("without a label",)


@pytest.mark.parametrize("shape", [(1, 15, 20), (1, 1, 15, 20), (1, 15, 20, 1)])
def test_a_network_that_gives_labels_itself(shape: tuple[int, ...]) -> None:
    labels = np.random.default_rng(5).integers(0, 3, shape)
    pixels = task().decode({"x": labels}, geometries=[geometry(80, 60)])[0].pixels()
    np.testing.assert_array_equal(pixels, labels.reshape(15, 20).repeat(4, axis=0).repeat(4, axis=1))


def decoded(counts: list[int], size: list[int]) -> Array:
    """Read COCO's uncompressed run lengths: columns one after another, first those without."""
    flat = np.concatenate([np.full(count, index % 2) for index, count in enumerate(counts)])
    return flat.reshape(size[1], size[0]).T.astype(bool)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
def test_runs_say_what_the_pixels_say(seed: int, height: int, width: int) -> None:
    pixels = (
        np.random.default_rng(seed)
        .choice([0, 1, 2, NO_LABEL], (height, width), p=[0.5, 0.3, 0.1, 0.1])
        .astype(np.uint16)
    )
    label_map = LabelMap.of(pixels)
    np.testing.assert_array_equal(label_map.pixels(), pixels)
    assert label_map.areas() == {label: int((pixels == label).sum()) for label in label_map.areas()}
    assert set(label_map.areas()) == set(np.unique(pixels).tolist()) - {NO_LABEL}
    assert list(label_map.areas().values()) == sorted(label_map.areas().values(), reverse=True)
    for label in (0, 1, 2):
        counts = label_map.counts(label)
        np.testing.assert_array_equal(decoded(counts, [height, width]), pixels == label)
        assert all(counts[1:]), "only the first run may be empty"
    shown = np.asarray(Image.open(io.BytesIO(label_map.png())))
    np.testing.assert_array_equal(shown, np.where(pixels == NO_LABEL, 255, pixels))


def test_a_row_and_its_picture() -> None:
    planes = np.zeros((1, 3, 2, 4), np.float32)
    planes[0, 1, :, 1:] = 1
    planes[0, 2, 1, 3] = 2
    answer = task().decode({"x": planes})[0]
    assert answer.row() == {
        "mask": {
            "size": [2, 4],
            "labels": [
                {"label": "sea", "share": 0.625},
                {"label": "sky", "share": 0.25},
                {"label": "sand", "share": 0.125},
            ],
            "rle": {"sea": [2, 5, 1], "sky": [0, 2, 6], "sand": [7, 1]},
        }
    }
    assert answer.row(1)["mask"]["labels"] == [{"label": "sea", "share": 0.625}]
    assert answer.row(1)["mask"]["rle"].keys() == {"sea"}
    assert answer.brief() == "sea 62.5 %, sky 25.0 %, sand 12.5 %"
    mask = answer.row(masks="png")["mask"]
    assert mask.keys() == {"size", "labels", "png"}
    image = Image.open(io.BytesIO(base64.b64decode(mask["png"])))
    assert (image.mode, image.size) == ("P", (4, 2))
    np.testing.assert_array_equal(np.asarray(image), [[0, 1, 1, 1], [0, 1, 1, 2]])
    # PASCAL VOC's colours: background, aeroplane, bicycle … void.
    assert [image.getpalette()[3 * index : 3 * index + 3] for index in (0, 1, 2, 8, 255)] == [  # type: ignore[index]
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [64, 0, 0],
        [224, 224, 192],
    ]


def test_a_png_has_room_for_255_labels() -> None:
    many = task(labels=[str(number) for number in range(300)])
    assert many.decode({"x": np.full((1, 2, 2), 254)})[0].png()
    with pytest.raises(InputError, match=r"label 255 doesn't fit .*room for 255"):
        many.decode({"x": np.full((1, 2, 2), 255)})[0].png()
    assert many.decode({"x": np.full((1, 2, 2), 299)})[0].row()["mask"]["rle"] == {"299": [0, 4]}


PLANES = np.zeros((1, 3, 4, 5), np.float32)
BAD: list[tuple[dict[str, Any], Array, str]] = [
    (
        {},
        PLANES[:, :2],
        r"output is \[1, 2, 4, 5\]; the Spec has 3 labels and layout NCHW, so \[N, 3, height, width\] is expected",
    ),
    ({"layout": "NHWC"}, PLANES, r"so \[N, height, width, 3\] is expected"),
    ({}, PLANES[:, :1], r"output is \[1, 1, 4, 5\]"),
    ({}, PLANES[0, 0], r"output is \[4, 5\]"),
    ({}, PLANES[:, :, :0], r"output is \[1, 3, 0, 5\]"),
    ({}, np.where(np.arange(5) == 2, np.nan, PLANES), "non-finite values in the network's output: nan"),
    ({}, np.where(np.arange(5) == 2, np.inf, PLANES), "non-finite values in the network's output: inf"),
    ({}, np.full((1, 4, 5), 3), "labels from 3 to 3, the Spec has 3"),
    ({}, np.full((1, 4, 5), -1), "labels from -1 to -1"),
    ({}, np.full((1, 3, 4, 5), 1), r"whole numbers \[1, 3, 4, 5\]"),
]


@pytest.mark.parametrize(("output", "raw", "words"), BAD)
def test_outputs_that_do_not_fit_are_refused_in_words(output: dict[str, Any], raw: Array, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        task(**output).decode({"x": raw})
    assert caught.value.hint
