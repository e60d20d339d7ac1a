"""Hostile TensorFlow.js models: code instead of literals, shards elsewhere, cut-off and absurd weights."""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from helpers.tfjs_writer import functional, graph, input_layer, keras, layer, node, normal, placeholder, write
from plimsoll.errors import InputError, ModelError
from plimsoll.importers.conversion import import_model
from plimsoll.importers.tfjs import files


@pytest.fixture(autouse=True)
def _without_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused here must be refused before TensorFlow.js sees it."""
    monkeypatch.setattr(shutil, "which", lambda *_: None)


def good(folder: Path) -> Path:
    layers = [input_layer("x", 4, 4, 3), layer("c", "Conv2D", "x", filters=2, kernel_size=[1, 1])]
    return write(folder, keras(functional(layers, ["x"], ["c"])), {"c/kernel": normal(1, 1, 3, 2), "c/bias": normal(2)})


def changed(folder: Path, change: Any) -> Path:
    model = good(folder)
    document = json.loads(model.read_text())
    change(document)
    model.write_text(json.dumps(document))
    return model


def test_what_minifiers_write_is_read() -> None:
    text = 'var a;m.exports={a:!0,b:!1,"c":[.5,-1e3,0x10,1.,],d:void 0,\'e\':"x\\u0041\\n\\\'",f:`t`,1:-Infinity,};//'
    result = files.exported(text, "m")
    assert result == {
        "a": True,
        "b": False,
        "c": [0.5, -1000.0, 16, 1.0],
        "d": None,
        "e": "xA\n'",
        "f": "t",
        "1": float("-inf"),
    }
    assert files.exported('export default "abc"', "m") == "abc"


@pytest.mark.parametrize(
    "text",
    [
        "module.exports={a:alert(1)}",
        "module.exports={a:1+1}",
        "module.exports={a:function(){}}",
        "module.exports={[a]:1}",
        "module.exports={...a}",
        "module.exports=`${alert(1)}`",
        "module.exports=[1,2",
        "module.exports={a:'x",
        "module.exports=" + "[" * 100_000,
        "module.exports={};module.exports={}",
        "module.exports=require('fs')",
        "module.exports={a:" + "9" * 1_000_000 + "}",
        "module.exports={a:1e}",
        "module.exports={a:0x}",
        r"module.exports='\u00zz'",
        "",
    ],
)
def test_code_and_damage_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.min.js").write_text(text + "\n// modelTopology")
    started = time.perf_counter()
    with pytest.raises(ModelError):
        import_model(tmp_path / "model.min.js", tmp_path / "out")
    assert time.perf_counter() - started < 60


@pytest.mark.parametrize(
    "name",
    ["../secret.bin", "/etc/passwd", "C:\\x", "a\\..\\b", "http://host/x.bin", "missing.bin", "link.bin", "a\0b", ""],
)
def test_shards_lie_beside_the_model(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(32))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "link.bin").symlink_to(tmp_path / "secret.bin")
    model = changed(tmp_path / "model", lambda document: document["weightsManifest"][0].update(paths=[name]))
    with pytest.raises(ModelError):
        import_model(model, tmp_path / "out")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["weightsManifest"][0]["weights"][0].update(shape=[2**40, 2**40]),
        lambda d: d["weightsManifest"][0]["weights"][0].update(shape=[-1, 1, 3, 2]),
        lambda d: d["weightsManifest"][0]["weights"][0].update(dtype="string"),
        lambda d: d["weightsManifest"][0]["weights"][0].update(quantization={"dtype": "uint8"}),
        lambda d: d["weightsManifest"][0]["weights"][0].update(shape="x"),
        lambda d: d["weightsManifest"][0].update(weights=None),
        lambda d: d.update(weightsManifest={}),
        lambda d: d.update(modelTopology=[]),
        lambda d: d["modelTopology"].update(model_config={"class_name": "Model"}),
        lambda d: d["modelTopology"]["model_config"]["config"].update(layers="x"),
        lambda d: d["modelTopology"]["model_config"]["config"]["layers"][0]["config"].update(
            batch_input_shape=[None, 2**40, 2**40, 3]
        ),
        lambda d: d["modelTopology"]["model_config"]["config"]["layers"][0]["config"].update(dtype="string"),
        lambda d: d["modelTopology"]["model_config"]["config"]["layers"][1]["config"].update(strides=["a"]),
        lambda d: d["modelTopology"]["model_config"]["config"].update(output_layers=[["c", 7, 0]]),
    ],
    ids=range(14),
)
def test_hostile_topologies_and_manifests_are_refused(tmp_path: Path, change: Any) -> None:
    with pytest.raises((ModelError, InputError)):
        import_model(changed(tmp_path, change), tmp_path / "out")


def nested(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"class_name": "Sequential", "config": {"name": "s", "layers": []}}
    for _ in range(depth):
        inner = {
            "class_name": "Sequential",
            "config": {"name": "s", "batch_input_shape": [None, 4, 4, 3], "layers": [inner]},
        }
    return inner


def test_models_within_models_end(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"models deep|can't be read"):
        import_model(write(tmp_path, keras(nested(200)), {"a": normal(1)}), tmp_path / "out")


@pytest.mark.parametrize("size", [3, 20_000])
def test_a_graph_that_reads_itself_is_refused(tmp_path: Path, size: int) -> None:
    circle = [node(f"n{index}", "Relu", f"n{(index + 1) % size}") for index in range(size)]
    nodes = [placeholder("x", -1, 4), *circle, node("read", "Relu", "n0")]
    with pytest.raises(ModelError, match="read each other"):
        import_model(write(tmp_path, graph(nodes, {}), {"a": normal(1)}, "graph-model"), tmp_path / "out")


def test_a_long_chain_that_is_listed_backwards_is_read_in_time(tmp_path: Path) -> None:
    size = 3000
    chain = [node(f"n{index}", "Relu", f"n{index - 1}" if index else "x") for index in reversed(range(size))]
    started = time.perf_counter()
    import_model(
        write(tmp_path, graph([*chain, placeholder("x", -1, 4)], {}), {"a": normal(1)}, "graph-model"), tmp_path / "out"
    )
    assert time.perf_counter() - started < 60


def test_damaged_bytes_anywhere_end_in_words(tmp_path: Path) -> None:
    model = good(tmp_path)
    text = model.read_bytes()
    chance = random.Random(9)
    for _ in range(300):
        damaged = bytearray(text)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        model.write_bytes(bytes(damaged))
        try:
            import_model(model, tmp_path / "out")
        except (ModelError, InputError) as error:
            assert error.message  # noqa: PT017 - either outcome is right
