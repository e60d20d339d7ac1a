"""ncnn's table: as ncnn2table writes it and ncnn2int8 reads it."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.backends.ncnn.int8_table import Table
from plimsoll.errors import InputError

scales = st.floats(1e-30, 1e30)
layers = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=20).filter(
    lambda name: not name.startswith("#") and "_param_" not in name and name == "".join(name.split())
)


@given(st.dictionaries(layers, st.tuples(st.lists(scales, min_size=1, max_size=5), scales), min_size=1, max_size=10))
def test_what_is_written_is_read_again(table: dict[str, tuple[list[float], float]]) -> None:
    original = Table(
        {name: tuple(weights) for name, (weights, _) in table.items()},
        {name: scale for name, (_, scale) in table.items()},
    )
    again = Table.loads(original.dumps())
    assert list(again.weights) == list(original.weights)
    for name, (weights, scale) in table.items():
        np.testing.assert_allclose(again.weights[name], weights, rtol=1e-7)
        assert again.activations[name] == pytest.approx(scale, rel=1e-7)


def test_a_layer_that_is_commented_out_stays_in_float() -> None:
    table = Table.loads("conv1_param_0 156.6 260.0 \n#fc_param_0 127.0\nconv1 0.84\nfc 31.5\n")
    assert table.weights == {"conv1": (156.6, 260.0)}
    assert table.activations == {"conv1": 0.84}
    assert table.in_float == {"fc"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no line"),
        ("conv1_param_0 1 2\n", "no line"),
        ("conv1 1 2\n", "line 1"),
        ("conv1\n", "0 scales"),
        ("conv1 one\n", "line 1"),
        ("conv1 nan\n", "nan"),
        ("conv1 0\n", "positive"),
        ("conv1 inf\n", "inf"),
        ("conv1 1\nconv1 1\n", "line 2.*duplicate"),
        ("conv1_param_0 1\nconv1_param_0 1\nconv1 1\n", "line 2.*duplicate"),
        ("lstm_param_1 1\nlstm 1\n", "one set of weights"),
    ],
)
def test_mistakes_are_reported(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Table.loads(text, "a table")


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InputError):
        Table.loads(text)


@pytest.mark.parametrize("name", ["", "a b", "#a", "a\n"])
def test_a_name_that_the_table_can_not_hold_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="can't stand"):
        Table({name: (1.0,)}, {name: 1.0}).dumps()
