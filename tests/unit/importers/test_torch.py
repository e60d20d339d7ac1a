"""PyTorch: exported programs, TorchScript, weights with code and live modules; what runs code when loaded is
refused."""

from __future__ import annotations

import io
import json
import pickle
import struct
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from helpers.toolchain_required import PROGRAMS, program, require, require_time
from plimsoll.backends.runner import Runner
from plimsoll.core.target import REFERENCE_TARGET
from plimsoll.errors import InputError, ModelError
from plimsoll.importers.base import ImportOptions
from plimsoll.importers.conversion import ImportedModel, import_model
from plimsoll.importers.torch import contents
from plimsoll.system import toolchains
from plimsoll.system.toolchains.environment import python_of

heavy = pytest.mark.toolchain
pytestmark = pytest.mark.timeout(1800)


def answers(imported: ImportedModel, feed: NDArray[Any]) -> NDArray[Any]:
    with Runner.open(imported.model, REFERENCE_TARGET) as runner:
        (only,) = runner.infer(feed).values()
    return np.asarray(only)


def check(imported: ImportedModel, folder: Path) -> None:
    """The proof holds, for batches of other sizes too, and the answers that PyTorch gave in another process are the
    same."""
    assert imported.parity is not None
    assert imported.parity.framework.startswith("PyTorch 2")
    assert imported.parity.worst.relative < 1e-4, str(imported.parity)
    with np.load(folder / "answers.npz") as arrays:
        pictures, expected = arrays["pictures"], arrays["answer"]
    actual = answers(imported, np.concatenate([pictures, pictures[:1]]))
    scale = float(np.sqrt(np.mean(expected**2)))
    np.testing.assert_allclose(actual, np.concatenate([expected, expected[:1]]), rtol=1e-4, atol=1e-4 * scale)


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torch")
    program("torch", "write_torch.py", folder, "all", "mobilenet_v2")
    return folder / "mobilenet_v2"


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    program("torch", "write_torch.py", folder, "odd")
    return folder


@heavy
def test_an_exported_program(mobilenet: Path, tmp_path: Path) -> None:
    imported = import_model(mobilenet / "network.pt2", tmp_path)
    check(imported, mobilenet)
    graph = onnx.load(imported.model.path).graph
    assert [
        (tensor.name, tensor.type.tensor_type.shape.dim[0].dim_param) for tensor in (*graph.input, *graph.output)
    ] == [
        ("x", "N"),
        ("output", "N"),
    ]
    assert not [
        node.op_type
        for node in graph.node
        if node.op_type in ("Dropout", "BatchNormalization") and len(node.output) > 1
    ]


@heavy
def test_torchscript(mobilenet: Path, tmp_path: Path) -> None:
    check(import_model(mobilenet / "network.torchscript", tmp_path), mobilenet)


@heavy
def test_weights_with_the_code_of_their_network(mobilenet: Path, tmp_path: Path) -> None:
    weights = mobilenet / "weights.pt"
    with pytest.raises(ModelError, match=r"weights without their network .*: .* not named") as caught:
        import_model(weights, tmp_path)
    assert "--architecture module:callable --trust" in caught.value.hint
    with pytest.raises(ModelError, match="the code of its network would have to run"):
        import_model(weights, tmp_path, ImportOptions(architecture="torch_networks:MobileNetV2"))
    options = ImportOptions(
        architecture="torch_networks:MobileNetV2(classes=1000)", trust=True, input_shapes={"x": (None, 3, 224, 224)}
    )
    check(import_model(weights, tmp_path, options), mobilenet)
    with pytest.raises(ModelError, match=r"the weights don't fit the network: \d+ missing"):
        import_model(
            weights, tmp_path, ImportOptions(architecture=f"{PROGRAMS / 'torch_networks.py'}:ResNet50", trust=True)
        )


@heavy
def test_several_inputs_and_named_outputs(odd: Path, tmp_path: Path) -> None:
    imported = import_model(
        odd / "scripted.pt", tmp_path, ImportOptions(input_shapes={"picture": (None, 3, 8, 8), "scale": (None, 1)})
    )
    assert imported.parity is not None
    graph = onnx.load(imported.model.path).graph
    assert [tensor.name for tensor in graph.input] == ["picture", "scale"]
    assert [tensor.name for tensor in graph.output] == ["output_0", "output_1"]
    named = onnx.load(import_model(odd / "named.pt2", tmp_path).model.path).graph
    assert [tensor.name for tensor in named.output] == ["map", "mean"]
    with pytest.raises(ModelError, match="no input image"):
        import_model(odd / "scripted.pt", tmp_path, ImportOptions(input_shapes={"image": (1, 3, 8, 8)}))


@heavy
def test_training_mode_is_left_or_refused(odd: Path, tmp_path: Path) -> None:
    shapes = {"picture": (None, 3, 8, 8), "scale": (None, 1)}
    left = import_model(odd / "scripted_training.pt", tmp_path, ImportOptions(input_shapes=shapes))
    assert "Dropout" not in [node.op_type for node in onnx.load(left.model.path).graph.node]
    for name in ("traced_training.pt", "training.pt2"):
        with pytest.raises(ModelError, match="saved in training mode"):
            import_model(odd / name, tmp_path)


@heavy
def test_a_fixed_batch_is_kept_and_said(odd: Path, tmp_path: Path) -> None:
    fixed = import_model(odd / "fixed.pt", tmp_path)
    assert any("the batch is fixed to 2" in note for note in fixed.notes)
    program_ = import_model(odd / "fixed.pt2", tmp_path)
    assert [axis.dim_value for axis in onnx.load(program_.model.path).graph.input[0].type.tensor_type.shape.dim] == [
        2,
        3,
        8,
        8,
    ]
    with pytest.raises(ModelError, match="exported for a batch of 2, not 4"):
        import_model(odd / "fixed.pt2", tmp_path, ImportOptions(batch=4))


@heavy
def test_pickles_are_refused_by_what_they_name(odd: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"a pickle of more than tensors.*__main__\.Small"):
        import_model(odd / "module.pt", tmp_path)
    for name in ("checkpoint.pth", "old.pth"):
        assert contents.look(odd / name).kind == "weights"
    options = ImportOptions(
        architecture=f"{PROGRAMS / 'write_torch.py'}:Small",
        trust=True,
        input_shapes={"picture": (1, 3, 8, 8), "scale": (1, 1)},
    )
    assert import_model(odd / "checkpoint.pth", tmp_path, options).parity is not None
    with pytest.raises(ModelError, match="can't load this file"):
        import_model(odd / "module.pt", tmp_path, ImportOptions(trust=True))  # __main__.Small is nowhere.


@heavy
@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v3", "unet", "yolov5n", "yolov5s", "yolov8n", "yolov8s"])
def test_networks_that_people_train(name: str, tmp_path: Path) -> None:
    require("torch")
    require_time()
    program("torch", "write_torch.py", tmp_path, "pt2", name)
    imported = import_model(tmp_path / name / "network.pt2", tmp_path / "out")
    check(imported, tmp_path / name)
    print(f"{name}: {imported.parity}")  # noqa: T201 - the measured parity, for the docs


@heavy
def test_a_live_module(tmp_path: Path) -> None:
    """Run in the toolchain's own Python, with this Plimsoll on its path: there torch is installed."""
    require("torch")
    script = (
        "import sys; sys.path[:0] = [sys.argv[1], *sys.argv[3].split('|')]\n"
        "import torch, torch_networks\n"
        "from pathlib import Path\n"
        "from plimsoll.importers.torch import live\n"
        "network = torch_networks.seeded(torch_networks.MobileNetV2()).train()\n"
        "made = live.convert(network, torch.zeros(1, 3, 64, 64), Path(sys.argv[2]), None)\n"
        "assert network.training and network.classifier[0].training, 'the mode is put back'\n"
        "assert made.probe.feeds['x'].shape == (3, 3, 64, 64), made.notes\n"
    )
    here = {
        Path(module.__file__ or "").resolve().parents[1] for module in (__import__("plimsoll"), __import__("pydantic"))
    }
    command = [
        str(python_of(toolchains.make("torch"))),
        "-c",
        script,
        str(PROGRAMS),
        str(tmp_path),
        "|".join(map(str, here)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit",))


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as opened:
        for name, data in members.items():
            opened.writestr(f"net/{name}", data)
    return path


def inner(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as opened:
        opened.writestr("a/data.pkl", data)
    return out.getvalue()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_code_in_a_pickle_is_found_however_it_is_packed(tmp_path: Path, protocol: int) -> None:
    evil = pickle.dumps({"conv.weight": Evil()}, protocol)
    twice = pickle.dumps({"a": 1}, 2) + evil
    files = {
        "zip.pt": {"data.pkl": evil, "version": b"3"},
        "script.pt": {"constants.pkl": pickle.dumps(()), "data.pkl": evil, "code/__torch__.py": b""},
        "program.pt2": {
            "archive_format": b"pt2",
            "models/model.json": b"{}",
            "data/sample_inputs/model.pt": inner(evil),
        },
        "object.pt2": {"archive_format": b"pt2", "models/model.json": b"{}", "data/constants/custom_obj_0": b""},
    }
    for name, members in files.items():
        with pytest.raises(ModelError, match=r"__builtin__\.exec|builtins\.exec|pickled object"):
            import_model(archive(tmp_path / name, members), tmp_path / "out")
    if protocol > 1:
        (tmp_path / "bare.pth").write_bytes(twice)
        with pytest.raises(ModelError, match="exec"):
            import_model(tmp_path / "bare.pth", tmp_path / "out")


@pytest.mark.parametrize(
    ("key", "text", "fine"),
    [
        ("expr_str", "Symbol('s77', positive=True, integer=True)", True),
        ("expr_str", "Mul(Integer(2), FloorDiv(Symbol('s0', integer=True), Integer(-3)))", True),
        ("expr_str", "Pow(Symbol('u1'), Float('2.5', precision=53))", True),
        ("expr_str", "__import__('os').system('true') or Symbol('s77')", False),
        ("expr_str", "Symbol('s77').__class__", False),
        ("expr_str", "Symbol('__import__')", False),
        ("expr_str", "exec('x')", False),
        ("expr_str", "(lambda: 1)()", False),
        ("guards_code", "L['x'].size()[0] <= 64 and Mod(L['x'].size()[2], 2) == 0", True),
        ("guards_code", "L['x'].__class__.__mro__", False),
        ("guards_code", "print(1)", False),
        ("target", "torch.ops.aten.conv2d.default", True),
        ("target", "_operator.getitem", True),
        ("target", "torch.hub.load", False),
        ("target", "torch.os.system", False),
        ("target", "torch.ops.aten.from_file.default", False),
    ],
)
def test_an_exported_program_says_only_what_pytorch_writes(tmp_path: Path, key: str, text: str, fine: bool) -> None:
    path = tmp_path / "net.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/archive_format", "pt2")
        archive.writestr(
            "net/models/model.json", json.dumps({"graph": {"nodes": [{key: [text] if key == "guards_code" else text}]}})
        )
    assert bool(contents.look(path).suspicious) is not fine


@pytest.mark.parametrize(
    "code", ["x = torch.from_file('/etc/passwd', True, 100)", "ops.aten.save(x, '/tmp/x')", "y = ops.mylib.run(x)"]
)
def test_torchscript_that_reaches_outside_is_refused(tmp_path: Path, code: str) -> None:
    members = {
        "constants.pkl": pickle.dumps(()),
        "data.pkl": pickle.dumps(()),
        "code/__torch__.py": f"def forward(self, x):\n  {code}".encode(),
    }
    with pytest.raises(ModelError, match="reaches outside of the network: it names"):
        import_model(archive(tmp_path / "net.pt", members), tmp_path / "out")


@pytest.mark.parametrize(
    "data", [b"", b"not a model", b"PK\x03\x04cut off", b"\x80\x02cut off", struct.pack("<Q", 2**60) + b"{"]
)
def test_damaged_files_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "net.pt").write_bytes(data)
    with pytest.raises(ModelError):
        import_model(tmp_path / "net.pt", tmp_path / "out")


def test_compiled_code_and_strange_archives_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="compiled machine code"):
        import_model(
            archive(tmp_path / "net.pt2", {"archive_format": b"pt2", "data/aotinductor/model/x.so": b""}),
            tmp_path / "out",
        )
    with pytest.raises(ModelError, match="a zip archive, but not PyTorch's"):
        import_model(archive(tmp_path / "net.pt", {"word/document.xml": b""}), tmp_path / "out")
    with pytest.raises(InputError, match=r"contains its network"):
        import_model(
            archive(tmp_path / "script.pt", {"constants.pkl": pickle.dumps(()), "data.pkl": pickle.dumps(())}),
            tmp_path,
            ImportOptions(architecture="a:b"),
        )
