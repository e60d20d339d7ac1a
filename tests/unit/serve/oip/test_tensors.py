"""Tensors between the protocol and NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from helpers.oip_service import element
from plimsoll.core.model import TensorInfo
from plimsoll.serve.messages import RequestError, RequestOptions
from plimsoll.serve.oip.datatypes import DTYPES, datatype_of
from plimsoll.serve.oip.inference import array, best, pictures, to_bytes, to_values
from plimsoll.serve.oip.schema import InferInput, InferRequest, RequestParameters

ANY = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda name: arrays.arrays(DTYPES[name], arrays.array_shapes(min_dims=1, max_dims=4, max_side=4))
)


def tensor(datatype: str, shape: Sequence[int], data: list[Any] | None = None) -> InferInput:
    return InferInput(name="x", datatype=datatype, shape=list(shape), data=data)


def options(remaining: float | None = None, **parameters: int | None) -> RequestOptions:
    named = RequestParameters(**parameters)  # type: ignore[arg-type]  # these have integers
    return InferRequest(inputs=[tensor("FP32", [1])], parameters=named).options(remaining)


def fact(value: NDArray[Any]) -> TensorInfo:
    return TensorInfo("x", (None, *value.shape[1:]), value.dtype.name)


@given(ANY)
def test_bytes_come_back_as_they_were(value: NDArray[Any]) -> None:
    raw = to_bytes(value)
    sent = tensor(datatype_of(value.dtype.name), value.shape).with_raw(memoryview(b"?" + raw)[1:])
    back = array(sent, fact(value), 4)
    assert back.dtype == value.dtype
    assert to_bytes(back) == raw


@given(ANY, st.booleans())
def test_values_come_back_as_they_were_nested_or_flat(value: NDArray[Any], nested: bool) -> None:
    values = value.tolist() if nested else to_values(value)
    back = array(tensor(datatype_of(value.dtype.name), value.shape, values), fact(value), 4)
    np.testing.assert_array_equal(back, value)
    assert back.dtype == value.dtype


def test_what_is_big_endian_or_not_contiguous_goes_little_endian_and_row_major() -> None:
    value = np.arange(6, dtype=">i4").reshape(2, 3).T
    assert to_bytes(value) == np.array([[0, 3], [1, 4], [2, 5]], "<i4").tobytes()


@pytest.mark.parametrize(
    ("datatype", "value", "fits"),
    [
        ("UINT8", 255, True),
        ("UINT8", 256, False),
        ("UINT8", -1, False),
        ("INT8", -128, True),
        ("INT8", -129, False),
        ("UINT64", 2**64 - 1, True),
        ("UINT64", 2**64, False),
        ("INT64", 2**63 - 1, True),
        ("INT64", 2**63, False),
        ("INT32", 1.0, False),
        ("INT32", True, False),
        ("BOOL", True, True),
        ("BOOL", 1, False),
        ("FP16", 65504, True),
        ("FP16", 70000, False),
        ("FP32", 2**24 + 1, True),
        ("FP32", 1e39, False),
        ("FP32", float("nan"), True),
        ("FP32", float("-inf"), True),
        ("FP64", 1e300, True),
        ("FP64", 10**400, False),
        ("FP64", "1", False),
    ],
)
def test_values_that_a_datatype_can_t_hold_are_refused(datatype: str, value: object, fits: bool) -> None:
    sent = tensor(datatype, (1,), [value])
    info = TensorInfo("x", (None,), DTYPES[datatype].name)
    if fits:
        assert array(sent, info, 1).dtype == DTYPES[datatype]
    else:
        with pytest.raises(RequestError, match="input 'x'"):
            array(sent, info, 1)


def test_a_bool_is_0_or_1() -> None:
    with pytest.raises(RequestError, match="neither 0 nor 1"):
        array(tensor("BOOL", (3,)).with_raw(b"\x00\x01\x02"), TensorInfo("x", (None,), "bool"), 3)


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=5))
def test_elements_of_bytes_are_found(parts: list[bytes]) -> None:
    elements = pictures(tensor("BYTES", (len(parts),)).with_raw(b"".join(map(element, parts))), 5)
    assert elements == parts
    assert to_bytes(np.array([*parts, None], object)[:-1]) == b"".join(map(element, parts))


def test_the_best_classes_stand_in_order_and_nan_last() -> None:
    ranked = best(np.array([[0.5, np.nan, 0.5, 2.0]], np.float32), 9, ["a", "b", "c", "d"])
    assert ranked.tolist() == [[b"2.000000:3:d", b"0.500000:0:a", b"0.500000:2:c", b"nan:1:b"]]
    assert best(np.array([[1, 3], [2, 0]], np.uint8), 1, ["only"]).tolist() == [[b"3.000000:1"], [b"2.000000:0"]]


@pytest.mark.parametrize(("given", "priority"), [(None, 0), (0, 0), (1, 1), (2, 0), (3, -1), (2**63, -1)])
def test_triton_s_priorities(given: int | None, priority: int) -> None:
    assert options(priority=given).priority == priority


def test_the_shorter_of_two_limits_holds() -> None:
    assert options(timeout=2_000_000).timeout == 2
    assert options(0.5, timeout=2_000_000).timeout == 0.5
    assert options(50, timeout=2_000_000).timeout == 2
    assert options(-1).timeout == 0.001
    assert options(timeout=2**63).timeout is None


def test_a_request_is_charged_for_what_it_says_it_holds() -> None:
    def rows(datatype: str, *shape: int) -> int:
        return InferRequest(inputs=[tensor(datatype, shape)]).rows(8)

    assert (rows("BYTES", 2, 3), rows("FP32", 2, 3), rows("BYTES"), rows("FP32"), rows("FP32", 10**30)) == (
        6,
        2,
        1,
        1,
        8,
    )
