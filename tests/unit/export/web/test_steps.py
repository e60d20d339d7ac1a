"""The input steps in JavaScript give the reference's tensors, bit for bit."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.javascript import HAS_NODE, tensors
from plimsoll.errors import ImageError
from plimsoll.preprocessing import Preprocessor
from plimsoll.spec import Input

pytestmark = pytest.mark.skipif(not HAS_NODE, reason="Node.js is not installed")

Steps = list[dict[str, Any]]
FILTERS = ("nearest", "bilinear", "bicubic", "lanczos", "area")
DECODE: dict[str, Any] = {"step": "decode", "formats": ["jpeg", "png", "gif"]}


def spec(*steps: dict[str, Any], **decode: Any) -> Input:
    return Input.model_validate({"steps": [{**DECODE, **decode}, *steps]})


def check(jobs: list[tuple[Input, Path]], folder: Path) -> None:
    """Compare all tensors, and refusals: where one side refuses, the other has to."""
    wrong = []
    for (job, file), actual in zip(jobs, tensors(jobs, folder), strict=True):
        try:
            expected = Preprocessor(job)(file)
        except ImageError as error:
            if not isinstance(actual, str):
                wrong.append(f"{file.name} {job.steps}: Python refuses it ({error.message}), JavaScript doesn't")
            continue
        if isinstance(actual, str):
            wrong.append(f"{file.name} {job.steps}: JavaScript refuses it ({actual})")
        elif (actual.shape, actual.dtype) != (expected.shape, expected.dtype):
            wrong.append(
                f"{file.name} {job.steps}: {actual.dtype} {actual.shape}, expected {expected.dtype} {expected.shape}"
            )
        elif not np.array_equal(actual, expected):
            apart = np.abs(actual.astype(np.float64) - expected)
            wrong.append(f"{file.name} {job.steps}: {np.count_nonzero(apart)} values differ, by up to {apart.max()}")
    assert not wrong, "\n".join(wrong[:10])


def resizes() -> Iterator[dict[str, Any]]:
    kinds: list[dict[str, Any]] = [
        {"convention": name, "filter": filter_} for name in ("pillow", "opencv", "tensorflow") for filter_ in FILTERS
    ]
    kinds += [
        {"convention": "tensorflow", "filter": filter_, "antialias": True}
        for filter_ in ("bilinear", "bicubic", "lanczos")
    ]
    for coordinates in ("align_corners", "asymmetric"):
        kinds += [
            {"convention": "tensorflow", "filter": filter_, "coordinates": coordinates}
            for filter_ in ("nearest", "bilinear", "bicubic")
        ]
    for kind in kinds:
        for width, height in ((64, 48), (131, 140), (60, 140), (140, 60), (119, 20), (140, 40)):
            yield {"step": "resize", **kind, "width": width, "height": height}
    for rounding in ("tensorflow", "none"):
        yield {"step": "resize", "convention": "tensorflow", "rounding": rounding, "width": 40, "height": 50}
        yield {
            "step": "resize",
            "convention": "tensorflow",
            "filter": "nearest",
            "rounding": rounding,
            "width": 40,
            "height": 50,
        }


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, example_photos: list[Path]) -> Path:
    """A photograph of 121 x 97 pixels, losslessly stored."""
    file = tmp_path_factory.mktemp("small") / "small.png"
    with Image.open(example_photos[0]) as opened:
        opened.convert("RGB").resize((121, 97)).save(file)
    return file


def test_every_resize(small: Path, tmp_path: Path) -> None:
    jobs = [(spec(step), small) for step in resizes()]
    jobs += [(spec(step, colour="grey"), small) for step in resizes() if step["width"] == 64]
    assert len(jobs) > 100
    check(jobs, tmp_path)


def test_a_fit_by_the_short_edge_and_letterboxes(small: Path, tmp_path: Path) -> None:
    box = {"step": "resize", "fit": "letterbox", "width": 160, "height": 96}
    candidates: list[dict[str, Any]] = [
        {},
        {"stride": 32},
        {"enlarge": False},
        {"pad_position": "end", "pad_value": 7},
        {"pad_first": True, "pad_value": 7},
        {"pad_first": True, "pad_position": "end", "convention": "opencv"},
        {"filter": "bicubic", "convention": "opencv"},
    ]
    fits = [{"step": "resize", "fit": "short_edge", "size": size} for size in (33, 97, 150)] + [
        {**box, **more} for more in candidates
    ]
    lines: list[dict[str, Any]] = [{"height": 48, "width": 320, "pad_value": 127}, {"height": 97, "width": 64}]
    lines += [{"height": 31}, {"height": 31, "stride": 32}, {"height": 31, "stride": 32, "width": 320}]
    fits += [{"step": "resize", "fit": "height", **line} for line in lines]
    check([(spec(step), small) for step in fits], tmp_path)


@pytest.mark.parametrize("colour", ["RGB", "BGR", "grey"])
def test_the_jpeg_round_trip(small: Path, tmp_path: Path, colour: str) -> None:
    before: Steps = [{"step": "channels", "order": "BGR"}] if colour == "BGR" else []
    options: list[dict[str, Any]] = [{"subsampling": filter_} for filter_ in ("4:4:4", "4:2:2", "4:2:0")]
    options += [{"quality": filter_} for filter_ in (1, 30, 49, 50, 90, 100)]
    options += [
        {"dct": "fast"},
        {"upsampling": "plain"},
        {"dct": "fast", "upsampling": "plain", "subsampling": "4:2:2"},
    ]
    sizes = [(121, 97), (1, 1), (3, 2), (16, 17), (5, 40)]
    decode = {"colour": "grey"} if colour == "grey" else {}
    jobs = [
        (
            spec({"step": "resize", "width": width, "height": height}, *before, {"step": "jpeg", **option}, **decode),
            small,
        )
        for option in options
        for width, height in sizes
    ]
    check(jobs, tmp_path)


def test_the_arithmetic(small: Path, tmp_path: Path) -> None:
    mean, std = {"step": "mean", "values": [0.485, 0.456, 0.406]}, {"step": "std", "values": [0.229, 0.224, 0.225]}
    tails: list[Steps] = [
        [{"step": "scale", "divisor": 255}, mean, std, {"step": "layout", "order": "NCHW"}],
        [
            {"step": "layout", "order": "NCHW"},
            {"step": "scale", "factor": 1 / 255},
            mean,
            std,
            {"step": "dtype", "to": "float16"},
        ],
        [{"step": "channels", "order": "BGR"}, {"step": "mean", "values": [104]}, {"step": "dtype", "to": "uint8"}],
        [{"step": "layout", "order": "NCHW"}, {"step": "layout", "order": "NHWC"}, {"step": "dtype", "to": "float32"}],
        [{"step": "scale", "factor": 1e-6}, {"step": "dtype", "to": "float16"}, {"step": "scale", "factor": 3}],
        [{"step": "crop", "width": 100, "height": 90, "centre": "round"}],
        [{"step": "crop", "width": 100, "height": 90}],
        [{"step": "crop", "width": 20, "height": 30, "x": 7, "y": 9}],
        [{"step": "crop", "width": 200, "height": 30, "x": 7, "y": 9}],
    ]
    check([(spec(*tail), small) for tail in tails], tmp_path)


def written(folder: Path, small: Path) -> list[Path]:
    """Write the picture as every kind of JPEG, PNG and GIF that Pillow writes."""
    with Image.open(small) as opened:
        image = opened.convert("RGB")
    grey, few = image.convert("L"), image.convert("P", palette=Image.Palette.ADAPTIVE, colors=20)
    clear = image.convert("RGBA")
    clear.putalpha(grey)
    cases: list[tuple[str, Image.Image, dict[str, Any]]] = []
    for subsampling in (0, 1, 2):
        for progressive in (False, True):
            cases.append(
                (f"{subsampling}{progressive}.jpg", image, {"subsampling": subsampling, "progressive": progressive})
            )
    for size in ((1, 1), (2, 3), (7, 5), (33, 17)):
        cases.append((f"{size}.jpg", image.resize(size), {"progressive": size[0] > 5}))
    cases += [
        ("q1.jpg", image, {"quality": 1}),
        ("q100.jpg", image, {"quality": 100}),
        ("grey.jpg", grey, {}),
        ("cmyk.jpg", image.convert("CMYK"), {}),
    ]
    cases += [
        ("rgb.jpg", image, {"keep_rgb": True}),
        ("restart.jpg", image, {"restart_marker_blocks": 3, "progressive": True}),
    ]
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        cases += [
            (f"turned{orientation}.jpg", image, {"exif": exif}),
            (f"turned{orientation}.png", image, {"exif": exif}),
        ]
    deep = Image.fromarray((np.arange(97 * 121, dtype=np.uint16) * 5).reshape(97, 121))
    cases += [
        ("1.png", image.convert("1"), {}),
        ("grey.png", grey, {}),
        ("few.png", few, {}),
        ("four.png", few, {"bits": 8}),
        ("rgba.png", clear, {}),
    ]
    cases += [("la.png", clear.convert("LA"), {}), ("deep.png", deep, {}), ("clear.png", few, {"transparency": 3})]
    cases += [
        ("clears.png", few, {"transparency": bytes(range(0, 200, 10))}),
        ("clear_grey.png", grey, {"transparency": 100}),
    ]
    cases += [
        ("rgb_clear.png", image, {"transparency": image.getpixel((5, 5))}),
        ("two.png", image.convert("P", palette=Image.Palette.ADAPTIVE, colors=3), {"bits": 2}),
    ]
    cases += [
        ("few.gif", few, {}),
        ("grey.gif", grey, {}),
        ("clear.gif", few, {"transparency": 3}),
        ("rows.gif", few, {"interlace": 1}),
    ]
    cases += [("two.gif", few, {"save_all": True, "append_images": [few.rotate(90)]})]
    for name, filter_, options in cases:
        filter_.save(folder / name, **options)
    whole = (folder / "1True.jpg").read_bytes()
    for name, data in {
        "short.jpg": whole[: len(whole) // 2],
        "no_end.jpg": whole[:-2],
        "behind.jpg": whole + b"more",
    }.items():
        (folder / name).write_bytes(data)
    (folder / "short.png").write_bytes((folder / "rgba.png").read_bytes()[:5000])
    damaged = bytearray((folder / "grey.png").read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    (folder / "damaged.png").write_bytes(damaged)
    return sorted(folder.iterdir())


def test_every_kind_of_file_is_decoded_alike_or_refused_alike(small: Path, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    files = written(tmp_path / "files", small)
    decodes: list[dict[str, Any]] = [
        {},
        {"colour": "grey"},
        {"alpha": "composite", "background": [10, 200, 77]},
        {"alpha": "composite", "colour": "grey"},
    ]
    decodes += [
        {"exif_orientation": True},
        {"dct": "fast"},
        {"upsampling": "plain"},
        {"dct": "fast", "colour": "grey"},
        {"formats": ["png"]},
    ]
    check([(spec(**decode), file) for file in files for decode in decodes], tmp_path)


def test_what_only_python_does_is_refused_with_its_name(small: Path, tmp_path: Path) -> None:
    """Not answered in another way: the first frame in place of all, colours as they are stored."""
    heif = tmp_path / "picture.heic"
    heif.write_bytes(b"\0\0\0\x18ftypheic" + bytes(4) + b"mif1heic" + bytes(64))
    jobs = [
        (spec(frames="all"), small),
        (spec(frames="every 5"), small),
        (spec(colour_profile="srgb"), small),
        (spec(formats=["heif"]), heif),
        (spec(), heif),
    ]
    assert [str(words) for words in tensors(jobs, tmp_path)] == [
        'frames = "all": only the first frame is decoded here',
        'frames = "every 5": only the first frame is decoded here',
        'colour_profile = "srgb": profiles are not followed here',
        "a HEIC file: it can't be decoded here; store it as PNG",
        "a heif file; accepted formats: jpeg, png, gif",
    ]


def chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def test_every_row_filter_depth_and_interlacing_of_png(tmp_path: Path) -> None:
    """Rows of random bytes under random filters mean something, too, and Pillow says what."""
    chance = np.random.default_rng(3)
    jobs = []
    for colours, samples, depths in (
        (0, 1, (1, 2, 4, 8, 16)),
        (2, 3, (8, 16)),
        (3, 1, (1, 2, 4, 8)),
        (4, 2, (8, 16)),
        (6, 4, (8, 16)),
    ):
        for depth in depths:
            for interlaced in (0, 1):
                width, height = 21, 13
                starts = (
                    ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
                    if interlaced
                    else ((0, 0, 1, 1),)
                )
                rows = b""
                for x, y, across, down in starts:
                    length = -(-(-(-(width - x) // across) * samples * depth) // 8)
                    for _ in range(-(-(height - y) // down)):
                        rows += bytes([chance.integers(5)]) + chance.integers(0, 256, length, np.uint8).tobytes()
                head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, colours, 0, 0, interlaced])
                palette = (
                    chunk(b"PLTE", chance.integers(0, 256, 3 << depth, np.uint8).tobytes()) if colours == 3 else b""
                )
                file = tmp_path / f"{colours}-{depth}-{interlaced}.png"
                file.write_bytes(
                    b"\x89PNG\r\n\x1a\n"
                    + chunk(b"IHDR", head)
                    + palette
                    + chunk(b"IDAT", zlib.compress(rows))
                    + chunk(b"IEND", b"")
                )
                jobs.append((spec(), file))
    check(jobs, tmp_path)


def test_a_photograph_that_ends_early_can_be_filled(awkward: Path, tmp_path: Path) -> None:
    check([(spec(truncated="fill"), awkward / "truncated.jpg")], tmp_path)


def test_awkward_files(awkward: Path, tmp_path: Path) -> None:
    """All but those that only a browser decodes."""
    files = [
        file
        for file in sorted(awkward.iterdir())
        if file.suffix not in {".webp", ".bmp", ".tiff"} and file.name != "mislabelled.jpg"
    ]
    check([(spec(max_megapixels=0.05 if file.name == "panorama.jpg" else 50), file) for file in files], tmp_path)


@pytest.mark.parametrize("name", ["open_nsfw", "open_nsfw_tf"])
def test_the_zoo_end_to_end_on_photographs(name: str, example_photos: list[Path], tmp_path: Path) -> None:
    from plimsoll import zoo

    check([(zoo.card(name).spec.input, photo) for photo in example_photos[::4]], tmp_path)
