"""TensorRT's calibration cache: written and read back, and refused in words."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.backends.tensorrt.calibration_cache import Cache
from plimsoll.errors import InputError

ends = st.floats(-1e30, 1e30, allow_nan=False)
names = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=40
).filter(lambda name: name == name.strip() and name.splitlines() == [name])
ranges = st.dictionaries(names, st.tuples(ends, ends).map(lambda pair: (min(pair), max(pair))), min_size=1, max_size=20)


@given(ranges)
def test_what_is_written_is_read_again(table: dict[str, tuple[float, float]]) -> None:
    again = Cache.loads(Cache.of(table).dumps())
    assert again == Cache.of(table)
    assert list(again.ranges) == list(table)
    for name, (low, high) in table.items():
        assert (
            again.ranges[name][1] == -again.ranges[name][0] == pytest.approx(max(-low, high, 0.0), rel=1e-6, abs=1e-40)
        )


def test_a_cache_of_tensorrt_itself() -> None:
    """As TensorRT 8.2.5 writes it, a name with spaces and colons among it."""
    text = (
        "TRT-8205-EntropyCalibration2\ninput: 3c010a14\n(Unnamed Layer* 12) [Convolution]_output: 3d4ccccd\nscope:0"
        " part:1: 40000000\n"
    )
    cache = Cache.loads(text)
    assert (cache.version, cache.algorithm) == ("8205", "EntropyCalibration2")
    assert list(cache.scales) == ["input", "(Unnamed Layer* 12) [Convolution]_output", "scope:0 part:1"]
    assert cache.scales["scope:0 part:1"] == 2.0
    assert cache.ranges["scope:0 part:1"] == (-254.0, 254.0)
    assert cache.dumps() == text


def test_the_hexadecimal_digits_are_big_endian() -> None:
    assert Cache.of({"x": (-127.0, 3.0)}).dumps().splitlines()[1] == f"x: {struct.pack('>f', 1.0).hex()}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line"),
        ("input: 3c010a14\n", "first line"),
        ("TRT-8205-EntropyCalibration2\n", "no tensor"),
        ("TRT-8205-EntropyCalibration2\ninput 3c010a14\n", "line 2"),
        ("TRT-8205-EntropyCalibration2\ninput: 3c010a1\n", "line 2"),
        ("TRT-8205-EntropyCalibration2\ninput: 3c010a1g\n", "line 2"),
        ("TRT-8205-EntropyCalibration2\n: 3c010a14\n", "line 2"),
        ("TRT-8205-EntropyCalibration2\nx: 7f800000\n", "inf"),
        ("TRT-8205-EntropyCalibration2\nx: 7fc00000\n", "nan"),
        ("TRT-8205-EntropyCalibration2\nx: bf800000\n", "-1.0"),
        ("TRT-8205-EntropyCalibration2\nx: 3f800000\nx: 3f800000\n", "duplicate"),
    ],
)
def test_mistakes_are_reported(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Cache.loads(text, "a cache")


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InputError):
        Cache.loads(f"TRT-1-x\n{text}")


@pytest.mark.parametrize("name", ["", " x", "a\nb", "a\u2028b"])
def test_a_name_that_has_no_line_of_its_own_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="can't stand"):
        Cache.of({name: (0.0, 1.0)})


@pytest.mark.parametrize(("version", "algorithm"), [("8.2", "Entropy"), ("8205", "a b"), ("", "x")])
def test_a_head_that_tensorrt_would_not_read_is_refused(version: str, algorithm: str) -> None:
    with pytest.raises(InputError, match="can't begin"):
        Cache.of({"x": (0.0, 1.0)}, version, algorithm)


def test_a_range_beyond_float32_is_refused() -> None:
    with pytest.raises(InputError, match="float32"):
        Cache.of({"x": (0.0, 1e41)})
