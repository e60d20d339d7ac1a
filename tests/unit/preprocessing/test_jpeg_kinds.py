"""JPEG files of every sampling, process and colour: the reference equals plain Pillow, and fast answers and refuses
what the reference does; what can't be decoded is refused for its true reason."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.jpeg_writer import COMPONENTS, FIRST_AND_OTHERS, Colours, write
from plimsoll.errors import ImageError
from plimsoll.preprocessing import fast_decode
from plimsoll.preprocessing.decode import Array, as_array
from plimsoll.preprocessing.decode import decode as reference_decode
from plimsoll.spec.steps import Decode

PHOTO = (Path(__file__).parents[3] / "examples" / "photos" / "coffee_cup.jpg").read_bytes()


def outcomes(data: bytes, **options: Any) -> tuple[Array | str, Array | str]:
    """What the reference and fast give: pixels, or words."""
    step = Decode(**options)
    results: list[Array | str] = []
    for decode in (reference_decode, fast_decode.decode):
        try:
            results.append(as_array(decode(data, step)))
        except ImageError as error:
            results.append(str(error))
    return results[0], results[1]


def pillow(data: bytes) -> Array | None:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except OSError:
        return None


def same(first: Array | str, second: Array | str) -> bool:
    if isinstance(first, str) or isinstance(second, str):
        return isinstance(first, str) and isinstance(second, str) and first == second
    return np.array_equal(first, second)


def kinds(colours: Colours) -> Iterator[tuple[str, bytes]]:
    for factors in FIRST_AND_OTHERS:
        four = (*factors, factors[0])[: COMPONENTS[colours]]
        for progressive in (False, True):
            for size in ((52, 44), (33, 17), (1, 9)):
                name = f"{four} {'progressive' if progressive else 'baseline'} {size}"
                yield name, write(*size, colours, four, progressive=progressive)


@pytest.mark.parametrize("colours", COMPONENTS)
def test_every_sampling_is_decoded_alike_or_refused_alike(colours: Colours) -> None:
    answered = 0
    for name, data in kinds(colours):
        reference, quick = outcomes(data)
        assert same(reference, quick), name
        expected = pillow(data)
        if expected is None:
            assert isinstance(reference, str), name
        else:
            assert same(reference, expected), name
            answered += 1
        for options in ({"colour": "grey"}, {"dct": "fast"}, {"upsampling": "plain"}):
            assert same(*outcomes(data, **options)), (name, options)
    assert answered >= 23 * 6 * (1 if colours == "grey" else 0.9), "sets that libjpeg-turbo can't upsample are few"


@pytest.mark.parametrize("colours", COMPONENTS)
@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
def test_a_jpeg_that_lacks_only_its_end_is_read_and_one_that_lacks_more_is_not(
    colours: Colours, progressive: bool
) -> None:
    data = write(52, 44, colours, ((2, 2), (1, 1), (1, 1), (2, 2)), progressive=progressive)
    whole, _ = outcomes(data)
    assert not isinstance(whole, str)
    for lacking in (1, 2):
        for result in outcomes(data[:-lacking]):
            assert same(result, whole), lacking
    for lacking in (6, 20, len(data) // 3):
        reference, quick = outcomes(data[:-lacking])
        assert isinstance(reference, str), lacking
        assert same(reference, quick)
    last_scan = data.rindex(b"\xff\xda")
    reference, quick = outcomes(data[: data.rindex(b"\xff\xc4", 0, last_scan)])
    if progressive or colours != "grey":
        assert isinstance(reference, str), "the last scan is missing as a whole"
        assert same(reference, quick)


def patched(data: bytes, **changes: int) -> bytes:
    """Change the start of frame: its `code`, `bits` or number of `components`."""
    out = bytearray(data)
    at = data.index(b"\xff\xc0")
    for key, offset in (("code", 1), ("bits", 4), ("components", 9)):
        out[at + offset] = changes.get(key, out[at + offset])
    return bytes(out)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bits": 12}, "12 bits a sample"),
        ({"bits": 12, "code": 0xC1}, "12 bits a sample"),
        ({"code": 0xC3}, "a lossless JPEG"),
        ({"code": 0xCB}, "a lossless JPEG"),
        ({"code": 0xC5}, "a hierarchical JPEG"),
        ({"code": 0xCE}, "a hierarchical JPEG"),
        ({"components": 2}, "2 colour components"),
    ],
)
def test_the_true_reason_of_a_refusal_is_told(changes: dict[str, int], reason: str) -> None:
    reference, quick = outcomes(patched(PHOTO, **changes))
    assert isinstance(reference, str)
    assert reason in reference
    assert same(reference, quick)


def test_a_picture_above_the_limit_is_refused_by_its_header_alone() -> None:
    """Nothing behind the header is needed, so nothing can have been decoded."""
    large = bytearray(PHOTO)
    at = PHOTO.index(b"\xff\xc0")
    large[at + 5 : at + 9] = b"\x2e\xe0\x2e\xe0"
    for data in (bytes(large), bytes(large[: at + 40])):
        reference, quick = outcomes(data)
        assert isinstance(reference, str)
        assert "144.0 megapixels" in reference
        assert same(reference, quick)
