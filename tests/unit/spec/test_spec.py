"""Specs: read, written, and refused with words that help."""

from __future__ import annotations

import copy
import json
import time
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plimsoll.errors import SpecError
from plimsoll.spec import Spec
from plimsoll.spec.files import MAX_BYTES, dumps, loads, read, schema, validate

CARDS = ["open_nsfw", "open_nsfw_tf"]


def card(name: str = "open_nsfw") -> dict[str, Any]:
    data: dict[str, Any] = tomllib.loads(
        files("plimsoll").joinpath(f"zoo/cards/{name}.toml").read_text(encoding="utf-8")
    )["spec"]
    return data


def with_steps(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"name": "a", "input": {"steps": list(steps)}, "output": {"task": "tensor"}}


def refusal(data: dict[str, Any]) -> str:
    with pytest.raises(SpecError) as caught:
        validate(data)
    return caught.value.message


@pytest.mark.parametrize("name", CARDS)
def test_a_card_survives_the_round_trip(name: str) -> None:
    spec = validate(card(name))
    assert loads(dumps(spec)) == spec
    assert validate(json.loads(spec.model_dump_json())) == spec
    assert len(dumps(spec)) < 1.5 * len(json.dumps(card(name)))


def test_what_stands_at_its_default_is_left_out() -> None:
    text = dumps(validate(card()))
    assert "max_megapixels" not in text
    assert 'step = "decode"' in text


def test_every_task_survives_the_round_trip() -> None:
    tasks: list[dict[str, Any]] = [
        {
            "task": "detect",
            "head": "ssd",
            "labels": ["a"],
            "anchors_file": "anchors.npy",
            "variances": [0.1, 0.1, 0.2, 0.2],
        },
        {"task": "landmarks", "points": 21, "dimensions": 3, "presence": "flag"},
        {"task": "segment", "labels": ["sky", "sea"], "layout": "NHWC"},
        {"task": "tensor", "tensors": ["a", "b"]},
    ]
    for task in tasks:
        spec = validate({**with_steps({"step": "decode"}), "output": task})
        assert loads(dumps(spec)) == spec
        assert spec.output.task == task["task"]


def test_the_tensor_spec_follows_the_steps() -> None:
    tensor = validate(card()).input.tensor_spec
    assert (tensor.shape, tensor.dtype, tensor.colour) == ((224, 224, 3), "float32", "BGR")
    steps: list[dict[str, Any]] = [
        {"step": "decode", "colour": "grey"},
        {"step": "resize", "fit": "short_edge", "size": 8},
        {"step": "layout", "order": "NCHW"},
    ]
    assert validate(with_steps(*steps)).input.tensor_spec.shape == (1, None, None)


def test_renamed() -> None:
    assert validate(card()).renamed("other").name == "other"


DECODE = {"step": "decode"}
RESIZE = {"step": "resize", "width": 8, "height": 8}
CLASSIFY = {"task": "classify", "labels": ["a", "b"]}

WRONG_STEPS: list[tuple[list[dict[str, Any]], list[str]]] = [
    ([DECODE, {**RESIZE, "widht": 9}], ["input.steps[1].widht: unknown key; did you mean 'width'?"]),
    (
        [DECODE, {**RESIZE, "filter": "cubic"}],
        ["input.steps[1].filter: found \"cubic\", allowed: 'nearest', 'bilinear', 'bicubic', 'lanczos' or 'area'"],
    ),
    ([DECODE, {**RESIZE, "width": "wide"}], ['input.steps[1].width: found "wide", expected', "integer"]),
    ([DECODE, {**RESIZE, "width": 0}], ["input.steps[1].width: found 0, expected greater than or equal to 1"]),
    ([DECODE, {"step": "crop", "width": 8}], ["input.steps[1].height: missing"]),
    ([DECODE, {"step": "blur"}], ['input.steps[1].step: found "blur", allowed:', "'resize'", "'mean'"]),
    ([DECODE, {"width": 8}], ["input.steps[1].step: missing, allowed:", "'resize'"]),
    ([RESIZE], ["the first step, and only the first, must be 'decode'"]),
    ([DECODE, RESIZE, DECODE], ["step 3 is a second 'decode'"]),
    ([], ["input.steps:", "at least 1 item"]),
    (
        [DECODE, {"step": "mean", "values": [1]}, RESIZE],
        ["step 3: 'resize' needs uint8 values, but they are float32 here"],
    ),
    (
        [DECODE, {"step": "layout", "order": "NCHW"}, {"step": "crop", "width": 4, "height": 4}],
        ["step 3: 'crop' works on height x width x channels"],
    ),
    (
        [DECODE, RESIZE, {"step": "crop", "width": 9, "height": 4}],
        ["step 3: the crop of 9x4", "does not fit into 8x8 pixels"],
    ),
    ([DECODE, {"step": "mean", "values": [1, 2]}], ["step 2: 'mean' has 2 values, expected 1 or 3", "RGB"]),
    ([{**DECODE, "colour": "grey"}, {"step": "std", "values": [1, 2, 3]}], ["'std' has 3 values, expected 1 or 1"]),
    ([{**DECODE, "colour": "grey"}, {"step": "channels", "order": "BGR"}], ["'channels' needs a colour picture"]),
    ([DECODE, {"step": "scale"}], ["give either 'factor' or 'divisor'"]),
    ([DECODE, {"step": "scale", "factor": 0}], ["a scale of zero"]),
    ([DECODE, {"step": "scale", "divisor": 0.0}], ["a scale of zero"]),
    ([DECODE, {"step": "std", "values": [0]}], ["input.steps[1].values[0]: found 0, expected greater than 0"]),
    ([DECODE, {"step": "crop", "width": 4, "height": 4, "x": 1}], ["give both x and y"]),
    ([DECODE, {"step": "resize", "fit": "short_edge", "width": 4, "height": 4}], ["takes 'size'"]),
    ([DECODE, {"step": "resize", "size": 4}], ["takes 'width' and 'height'"]),
    ([DECODE, {"step": "resize", "fit": "height", "width": 9}], ["fit = 'height' takes 'height'"]),
    (
        [DECODE, {"step": "resize", "fit": "height", "height": 9, "pad_value": 0, "enlarge": False}],
        ["enlarge: allowed only with fit = 'letterbox', but fit is 'height'"],
    ),
    ([DECODE, {**RESIZE, "stride": 32}], ["stride: allowed only with fit = 'letterbox', but fit is 'stretch'"]),
    (
        [DECODE, {**RESIZE, "coordinates": "asymmetric"}],
        ["coordinates = 'asymmetric' is for convention = 'tensorflow'"],
    ),
    ([DECODE, {**RESIZE, "rounding": "none"}], ["convention = 'pillow' always rounds"]),
    ([DECODE, {**RESIZE, "antialias": False}], ["convention = 'pillow' with filter = 'bilinear' always anti-aliases"]),
    ([DECODE, {**RESIZE, "convention": "opencv", "antialias": True}], ["never anti-aliases"]),
    (
        [DECODE, {**RESIZE, "convention": "tensorflow", "antialias": True, "coordinates": "align_corners"}],
        ["TensorFlow anti-aliases with"],
    ),
    (
        [DECODE, {**RESIZE, "convention": "tensorflow", "filter": "lanczos", "coordinates": "asymmetric"}],
        ["TensorFlow has lanczos with"],
    ),
    (
        [{**DECODE, "max_megapixels": 5000}],
        ["input.steps[0].max_megapixels: found 5000, expected less than or equal to 1000"],
    ),
    (
        [{**DECODE, "background": [0, 0, 256]}],
        ["input.steps[0].background[2]: found 256, expected less than or equal to 255"],
    ),
    ([{**DECODE, "formats": ["jpeg", "svg"]}], ["input.steps[0].formats[1]: found \"svg\", allowed: 'jpeg', 'png'"]),
]


@pytest.mark.parametrize(("steps", "words"), WRONG_STEPS)
def test_a_wrong_step_is_refused_with_key_value_and_what_is_allowed(
    steps: list[dict[str, Any]], words: list[str]
) -> None:
    message = refusal(with_steps(*steps))
    assert all(word in message for word in words), message
    assert "1 mistake in the Spec" in message


WRONG_OUTPUTS: list[tuple[dict[str, Any], list[str]]] = [
    ({**CLASSIFY, "threshold": 1.5}, ["output.threshold: found 1.5, expected less than or equal to 1"]),
    ({**CLASSIFY, "labels": ["a", "b", "a"]}, ["output.labels: duplicate label 'a'"]),
    ({**CLASSIFY, "labels": []}, ["output.labels:", "at least 1 item"]),
    ({**CLASSIFY, "positive": "c"}, ["positive: unknown label 'c'; choose from a, b"]),
    ({**CLASSIFY, "bands": [{"label": "x"}]}, ["bands: they need a 'positive' label"]),
    (
        {
            **CLASSIFY,
            "positive": "a",
            "bands": [{"label": "x", "below": 0.8}, {"label": "y", "below": 0.2}, {"label": "z"}],
        },
        ["bands: 'below' must rise"],
    ),
    (
        {
            **CLASSIFY,
            "positive": "a",
            "bands": [{"label": "x", "below": 0.8}, {"label": "y", "below": 0.8}, {"label": "z"}],
        },
        ["bands: 'below' must rise"],
    ),
    ({**CLASSIFY, "positive": "a", "bands": [{"label": "x", "below": 0.8}]}, ["only the last band has none"]),
    ({**CLASSIFY, "positive": "a", "bands": [{"label": "x"}, {"label": "y"}]}, ["bands: 'below' must rise"]),
    ({"task": "clasify", "labels": ["a"]}, ['output.task: found "clasify", allowed:', "'classify'"]),
    ({"labels": ["a"]}, ["output.task: missing, allowed:", "'classify'"]),
    ({"task": "detect", "labels": ["a"]}, ["output.head: missing"]),
    ({"task": "detect", "labels": ["a", "a"], "head": "ssd"}, ["output.labels: duplicate label 'a'"]),
    ({"task": "segment", "labels": ["a", "a"]}, ["output.labels: duplicate label 'a'"]),
]


@pytest.mark.parametrize(("output", "words"), WRONG_OUTPUTS)
def test_a_wrong_output_is_refused(output: dict[str, Any], words: list[str]) -> None:
    message = refusal({**with_steps(DECODE), "output": output})
    assert all(word in message for word in words), message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "step",
    [
        {"step": "mean", "values": [1]},
        {"step": "std", "values": [1]},
        {"step": "scale", "factor": 1},
        {"step": "scale", "divisor": 1},
    ],
)
def test_a_number_that_is_not_finite_is_refused(step: dict[str, Any], value: float) -> None:
    """It would make every tensor NaN, infinite or empty."""
    key = next(key for key in step if key != "step")
    assert "finite" in refusal(with_steps(DECODE, {**step, key: [value] if key == "values" else value}))


def test_every_mistake_is_reported_at_once() -> None:
    data = card()
    data["nmae"] = data.pop("name")
    data["input"]["steps"][1]["filter"] = "cubic"
    data["input"]["steps"][2]["quality"] = 101
    del data["output"]["labels"]
    message = refusal(data)
    assert "5 mistakes" in message
    assert message.count("\n  - ") == 5
    for word in (
        "name: missing",
        "nmae: unknown key; did you mean 'name'?",
        "steps[1].filter",
        "steps[2].quality: found 101",
        "output.labels: missing",
    ):
        assert word in message


def test_a_flood_of_mistakes_is_reported_in_short_and_in_time() -> None:
    start = time.perf_counter()
    message = refusal({**card(), **{f"key{number}": 1 for number in range(20_000)}})
    assert "20,000 mistakes" in message
    assert len(message) < 20_000
    assert time.perf_counter() - start < 60


@pytest.mark.parametrize("name", ["", "a b", "../a", "a" * 101, "-a", "a\n"])
def test_a_name_is_a_name(name: str) -> None:
    assert "name: found" in refusal({**with_steps(DECODE), "name": name})


def test_schema_is_a_json_schema_that_describes_the_cards() -> None:
    document = schema()
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json.loads(json.dumps(document)) == document
    _follow(document, document)
    assert set(document["properties"]) == set(Spec.model_fields)
    for name in CARDS:
        assert _accepts(document, document, card(name)), name
    for wrong in (
        {**card(), "extra": 1},
        {**card(), "name": 5},
        {**card(), "input": {"steps": []}},
        with_steps({"step": "blur"}),
    ):
        assert not _accepts(document, document, wrong)


def _follow(node: Any, root: dict[str, Any]) -> None:
    """Every reference leads somewhere, every type is one of JSON's."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            assert node["$ref"].removeprefix("#/$defs/") in root["$defs"]
        if isinstance(node.get("type"), str):
            assert node["type"] in {"object", "array", "string", "number", "integer", "boolean", "null"}
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _follow(child, root)


TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (),
}


def _accepts(node: dict[str, Any], root: dict[str, Any], value: Any) -> bool:
    """The part of JSON Schema that says which keys and types there are."""
    if "$ref" in node:
        return _accepts(root["$defs"][node["$ref"].removeprefix("#/$defs/")], root, value)
    choices = node.get("anyOf", node.get("oneOf"))
    if choices is not None:
        return any(_accepts(choice, root, value) for choice in choices)
    if ("const" in node and value != node["const"]) or ("enum" in node and value not in node["enum"]):
        return False
    if "type" in node and not isinstance(value, TYPES[node["type"]]):
        return False
    if isinstance(value, dict):
        known = node.get("properties", {})
        fits = all(key in known and _accepts(known[key], root, item) for key, item in value.items())
        return fits and set(node.get("required", [])) <= set(value)
    if isinstance(value, list):
        return len(value) >= node.get("minItems", 0) and all(
            _accepts(node.get("items", {}), root, item) for item in value
        )
    return True


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name = ",
        "name = 1",
        "a = " + "[" * 100_000,
        "a = " + "{a=" * 20_000,
        "a" + ".a" * 3_000 + " = 1",
        "name" + ".a" * 3_000 + " = 1",
        "a = " + "1" * 5_000,
        "[[input.steps]]\nstep = 'decode'\nmax_megapixels = 0x" + "f" * 5_000,
        "name = 0x" + "f" * 5_000,
        "name = 2026-01-01",
        "name = '\ud800'",
        "\0",
        "input = 3\noutput = 'x'",
        "[input]\nsteps = 'decode'",
        "[input]\nsteps = ['decode', 1, [], {}]",
    ],
    ids=lambda text: repr(text[:24]),
)
def test_hostile_text_is_a_spec_error(text: str) -> None:
    with pytest.raises(SpecError):
        loads(text)


def test_files_that_are_not_specs(tmp_path: Path) -> None:
    contents = {"binary": bytes(range(256)), "huge": b"#" * (MAX_BYTES + 1), "utf16": "name = 'a'".encode("utf-16")}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name, words in {
        "binary": "not UTF-8",
        "huge": "larger than 8 MB",
        "utf16": "not UTF-8",
        "missing": "No such file",
        ".": "directory",
        "a\0b": "null",
    }.items():
        with pytest.raises(SpecError, match=words) as caught:
            read(tmp_path / name)
        assert caught.value.hint


def test_a_file_is_read_and_named_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_text(dumps(validate(card())), encoding="utf-8")
    assert read(path) == validate(card())
    path.write_text("name = 'a'", encoding="utf-8")
    with pytest.raises(SpecError, match=r"spec\.toml: 2 mistakes in the Spec"):
        read(path)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.sampled_from(["step", "task", "width", "labels", "steps", "x"]) | st.text(max_size=4)
    return st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4)


_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["decode", "resize", "classify", "RGB"])
)
JSON = st.recursive(_LEAVES, _containers, max_leaves=12)


def locations(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(deeper for key, item in items for deeper in locations(item, (*path, key)))]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_card_with_anything_anywhere_is_a_spec_or_a_spec_error(data: st.DataObject) -> None:
    changed = copy.deepcopy(card(data.draw(st.sampled_from(CARDS))))
    *path, last = data.draw(st.sampled_from(locations(changed)[1:]))
    here = changed
    for key in path:
        here = here[key]
    here[last] = data.draw(JSON)
    try:
        spec = validate(changed)
    except SpecError:
        return
    assert loads(dumps(spec)) == spec


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["name", "input", "output", "schema_version"]) | st.text(max_size=4), JSON, max_size=5
    )
)
def test_any_dict_is_a_spec_or_a_spec_error(data: dict[str, Any]) -> None:
    try:
        validate(data)
    except SpecError as error:
        assert error.message  # noqa: PT017 - most random data is refused, some is not
