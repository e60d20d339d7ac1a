"""What is written as protobuf text is read by protobuf as the same."""

from __future__ import annotations

import pytest

from plimsoll.export.triton.text_format import Word, dumps, entries


def test_fields_of_every_kind() -> None:
    text = dumps(
        {
            "name": "a",
            "count": 2,
            "share": 0.5,
            "on": True,
            "kind": Word("KIND_CPU"),
            "absent": None,
            "dims": [-1, 3],
            "step": [{"model": "b"}, {}],
            "none": [],
        }
    )
    assert (
        text
        == 'name: "a"\ncount: 2\nshare: 0.5\non: true\nkind: KIND_CPU\ndims: [ -1, 3 ]\nstep {\n  model: "b"\n}\nstep'
        " {\n}\n"
    )


def test_maps_are_lists_of_keys_and_values() -> None:
    assert (
        dumps({"parameters": entries({"a": {"string_value": "1"}})})
        == 'parameters {\n  key: "a"\n  value {\n    string_value: "1"\n  }\n}\n'
    )


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ('a "quoted" one', r'"a \"quoted\" one"'),
        ("back\\slash", r'"back\\slash"'),
        ("two\nlines\t\r", r'"two\nlines\t\r"'),
        ("é", r'"\303\251"'),
        ("\0\x7f", r'"\000\177"'),
        ("🙂", r'"\360\237\231\202"'),
        ("}", '"}"'),
    ],
)
def test_texts_are_escaped(value: str, written: str) -> None:
    assert dumps({"name": value}) == f"name: {written}\n"


def test_what_has_no_text_format_is_refused() -> None:
    with pytest.raises(TypeError, match="bytes"):
        dumps({"name": b"a"})
