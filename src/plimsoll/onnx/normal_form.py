"""One normal form of ONNX: what backends and quantizers meet, however a file was written.

Its nodes are sorted and named, its weights lie inside (beside it where they are large) and are no inputs, local
functions are written out, its opset is 13 or later, constants are computed, padding is written as numbers, and shapes
are inferred anew. What a network computes stays the same, and that is measured: both forms answer the same tensors
in ONNX Runtime, random ones and pictures by the Spec's input steps, and a change that shows is left out. Names of
inputs and outputs stay.

A network in another form is written anew into Plimsoll's cache, once, under the hash of its files.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.deviation import deviation
from plimsoll.core.fit import takes_picture
from plimsoll.core.foreign import translate
from plimsoll.core.model import Model
from plimsoll.errors import BuildError, ModelError
from plimsoll.onnx import dequantize, folding, load, names, opset, padding, structure
from plimsoll.onnx.graph import open_in_runtime
from plimsoll.system import cache, files

if TYPE_CHECKING:
    from onnx import ModelProto

LEAST_SNR_DB = 100.0
"""Both forms are equal to float32's rounding above this."""
LEAST_QUANTIZED_SNR_DB = 40.0
"""For networks in integers or float16, where a rounding can fall on the other side."""

_UNCHANGED = "unchanged"
_SMALL_BYTES = 1_000_000
_SAMPLES = 4
_FREE_SIZES = (64, 224, 320, 32)
"""Tried for sizes that neither the network nor the Spec says."""

Array = NDArray[Any]
Pass = Callable[["ModelProto"], "ModelProto"]
SampleTensors = Callable[[Model], Sequence[Array]]


def normal_form(model: Model, proto: ModelProto, sample_tensors: SampleTensors = lambda _: []) -> Model:
    """Return a parsed ONNX network in normal form, checked: itself where it is that already, else a new one with the
    network as its parent. `sample_tensors` gives what it reads for some pictures; on these and on random tensors both
    have to answer alike. Raises ModelError for a network that is not valid."""
    if _is_stored(model.path):
        return model
    if _is_normal(model, proto):
        try:
            load.check(model.path)
        except ModelError:
            if not any(graph.value_info for graph in structure.graphs(proto)):
                raise  # Else it may be these alone, which the normal form has anew.
        else:
            return model
    return _stored(model, proto, sample_tensors)


def original(model: Model) -> Model:
    """Return the network as its file came, of one in normal form; any other is returned as it is."""
    return model.parent if model.parent is not None and _is_stored(model.path) else model


def _is_normal(model: Model, proto: ModelProto) -> bool:
    if proto.functions or load.opset(proto) < opset.COMMON or structure.has_listed_constants(proto.graph):
        return False
    if model.files and sum(file.stat().st_size for file in model.files) <= load.MAX_INSIDE_BYTES:
        return False
    nodes = list(load.messages(proto.graph, "NodeProto"))
    if structure.has_untyped_outputs(proto) or any(
        structure.is_old_group_norm(node, load.opset(proto)) for node in nodes
    ):
        return False
    if any(node.op_type in ("Constant", "Identity") or padding.has_automatic_padding(node) for node in nodes):
        return False
    if any(graph.sparse_initializer or not structure.is_sorted(graph) for graph in structure.graphs(proto)):
        return False
    given = [node.name for node in nodes if node.name]
    written_otherwise = names.has_unprintable(proto) or padding.infinite_pads(proto) or folding.foldable(proto)
    return not written_otherwise and len(set(given)) == len(given)


def _is_stored(path: Path) -> bool:
    return path.is_relative_to(cache.runtime_folder("onnx"))


def _stored(model: Model, proto: ModelProto, sample_tensors: SampleTensors) -> Model:
    """Return the normal form from the cache, or write it there; into a folder for this process where that can't be
    written."""
    sizes = model.spec.input.shape if model.spec is not None else None
    parts: dict[str, Any] = {"file": model.sha256, "name": model.path.name, "sizes": sizes, **_makers()}
    if model.spec is not None:
        parts |= {"steps": model.spec.input.model_dump(mode="json")}  # What it is shown.
    build = cache.build_folder("onnx", parts)
    if not any((build / name).is_file() for name in (model.path.name, _UNCHANGED)):
        shutil.rmtree(build, ignore_errors=True)  # Such as an eviction leaves that was interrupted.
        try:
            build.parent.mkdir(parents=True, exist_ok=True)
            part = Path(tempfile.mkdtemp(prefix=".part-", dir=build.parent))
        except OSError:
            part = build = _temporary_folder()
        try:
            _write(model, proto, part, sample_tensors)
            if part != build:
                _move(part, build)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    with suppress(OSError):
        cache.mark_used(build)
    if (build / _UNCHANGED).exists():
        return model
    path = build / model.path.name
    beside = tuple(sorted(file for file in build.rglob("*") if file.is_file() and file != path))
    return Model(path, model.format, model.spec, parent=model, files=beside)


@lru_cache(maxsize=1)
def _makers() -> dict[str, str]:
    """Return what a stored form depends on beside the network: this code, and the packages that it calls."""
    code = [Path(str(module.__file__)) for module in (folding, load, names, opset, padding, structure)]
    digests = {file.stem: files.sha256(file) for file in (Path(__file__), *code)}
    return {name: metadata.version(name) for name in ("onnx", "onnxruntime")} | digests


def _temporary_folder() -> Path:
    import atexit

    folder = Path(tempfile.mkdtemp(prefix="plimsoll-onnx-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _move(part: Path, build: Path) -> None:
    try:
        part.replace(build)
    except OSError:  # Another process was quicker.
        shutil.rmtree(part, ignore_errors=True)
    cache.evict(build)


def _write(model: Model, proto: ModelProto, folder: Path, sample_tensors: SampleTensors) -> None:
    """Write the normal form into `folder`, or a note that the network stays as it is; raises ModelError."""
    original = proto.SerializeToString()
    with tempfile.TemporaryDirectory(prefix=".work-", dir=folder) as work:
        _copy_large_weights(model, Path(work))
        written = _rewritten(model, proto, Path(work), sample_tensors)
        if written is not None and written.read_bytes() != original:
            written.replace(folder / model.path.name)
            for file in _beside(model, Path(work)):
                shutil.move(file, folder / file.relative_to(work))
            return
    load.check(model.path)
    (folder / _UNCHANGED).touch()


def _is_large(model: Model) -> bool:
    return sum(file.stat().st_size for file in model.files) > load.MAX_INSIDE_BYTES


def _copy_large_weights(model: Model, folder: Path) -> None:
    for file in _beside(model, folder):
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model.path.parent / file.relative_to(folder), file)


def _beside(model: Model, folder: Path) -> list[Path]:
    """Return where the files of weights that stay outside lie in `folder`."""
    return [folder / file.relative_to(model.path.parent) for file in model.files] if _is_large(model) else []


def _rewritten(model: Model, proto: ModelProto, folder: Path, sample_tensors: SampleTensors) -> Path | None:
    """Write the normal form and return its file: with all passes, or without those that change an answer. None where
    not even the order may change."""
    stated = [structure.copy_of(value) for value in proto.graph.output]
    try:
        with translate(BuildError, f"{model.source}: can't be written in normal form"):
            base, proto = _structured(model, proto, folder)
    except BuildError:  # A part of onnx refuses what it has no rule for; the network stays as it came.
        return None
    is_rounded = dequantize.is_lifted(proto)
    limit = LEAST_QUANTIZED_SNR_DB if is_rounded else LEAST_SNR_DB
    try:
        whole = _apply(_PASSES, proto)  # Before anything runs: it refuses constants that no memory could hold.
    except ModelError as error:
        raise ModelError(f"{model.path}: {error.message}", error.hint) from error
    reference = _Reference.of(model, base, sample_tensors(model)[:_SAMPLES])
    if reference is None:
        return base if [*proto.graph.output] == stated else None
    for number, passes in enumerate(_selections()):
        path = folder / f"{number}.onnx"
        if _save(_apply(passes, proto) if number else whole, path) and reference.equals(path, limit):
            return path
    return base if reference.equals(base, limit) else None


def _structured(model: Model, proto: ModelProto, folder: Path) -> tuple[Path, ModelProto]:
    """Write the network in the form that needs no arithmetic, checked; return its file too."""
    _load_weights(proto, model)
    names.make_printable(proto)
    for graph in structure.graphs(proto):
        structure.sort(graph)
    proto = structure.inline_functions(proto)
    for graph in structure.graphs(proto):
        structure.constants_to_initializers(graph)
        structure.densify(graph)
        structure.sort(graph)
        structure.write_out_group_norms(graph, load.opset(proto))
    structure.unlist_constants(proto.graph)
    structure.forget_shapes(proto)
    structure.name_nodes(proto)
    structure.type_outputs(proto)
    proto.ir_version = max(proto.ir_version, structure.IR_VERSION)
    path = folder / "base.onnx"
    if not _save(proto, path):  # The shapes of the outputs may be another export's as well.
        stated = [structure.copy_of(value) for value in proto.graph.output]
        for value in proto.graph.output:
            value.type.tensor_type.ClearField("shape")
        structure.infer(proto)
        for value, before in zip(proto.graph.output, stated, strict=True):
            if not value.type.tensor_type.HasField("shape"):
                value.CopyFrom(before)
        path.write_bytes(proto.SerializeToString())
        load.check(path, model.path)
    return path, proto


def _load_weights(proto: ModelProto, model: Model) -> None:
    from onnx import external_data_helper

    all_inside = not _is_large(model)
    for tensor in load.messages(proto, "TensorProto"):
        lengths = [int(entry.value) for entry in tensor.external_data if entry.key == "length"]
        if folding.is_external(tensor) and (all_inside or (lengths and lengths[0] <= _SMALL_BYTES)):
            external_data_helper.load_external_data_for_tensor(tensor, str(model.path.parent))
            tensor.data_location = 0
            del tensor.external_data[:]


def _save(proto: ModelProto, path: Path) -> bool:
    """Write and check a form; tell whether it is valid."""
    try:
        with translate(BuildError, f"{path.name}: can't be written"):  # More than 2 GB, for one.
            path.write_bytes(proto.SerializeToString())
        load.check(path)
    except (BuildError, ModelError):
        return False
    return True


def _raise_opset(proto: ModelProto) -> ModelProto:
    if load.opset(proto) >= opset.COMMON:
        return proto
    proto = opset.raised(proto)
    for graph in structure.graphs(proto):
        structure.constants_to_initializers(graph)
    return proto


def _fold(proto: ModelProto) -> ModelProto:
    count = -1
    while count != (count := len(proto.graph.node)):
        structure.infer(proto)
        folding.fold_sizes(proto)
        folding.fold(proto)
        structure.resolve_conditions(proto)
    return proto


def _drop_identities(proto: ModelProto) -> ModelProto:
    folding.drop_identities(proto)
    folding.drop_unused(proto.graph)
    return proto


def _resolve_padding(proto: ModelProto) -> ModelProto:
    structure.infer(proto)
    padding.resolve(proto)
    padding.join_infinite_pads(proto)
    return proto


_PASSES: tuple[Pass, ...] = (_raise_opset, _fold, _resolve_padding, _drop_identities)


def _selections() -> Iterator[tuple[Pass, ...]]:
    """Yield all passes, then all but one, then each alone."""
    yield _PASSES
    for left_out in _PASSES:
        yield tuple(step for step in _PASSES if step is not left_out)
    for step in _PASSES:
        yield (step,)


def _apply(passes: Sequence[Pass], proto: ModelProto) -> ModelProto:
    """Return the network after the passes; one that fails changes nothing."""
    for step in passes:
        with suppress(BuildError):
            proto = step(structure.copy_of(proto))
    structure.name_nodes(proto)
    structure.infer(proto)
    return proto


class _Reference:
    """A network's answers to random tensors and to pictures, in ONNX Runtime without its optimizations."""

    def __init__(self, feeds: Sequence[Mapping[str, Array]], answers: Sequence[Sequence[Any]]) -> None:
        self._feeds = feeds
        self._answers = answers

    @classmethod
    def of(cls, model: Model, base: Path, samples: Sequence[Array]) -> _Reference | None:
        """Return the answers of the network as it came, or of `base` where only that runs; None where neither does, or
        where the same tensors give different answers."""
        for path in (model.path, base):
            for sizes in _FREE_SIZES:
                for batch in (2, 1):
                    with suppress(BuildError):
                        feeds = list(_feeds(path, model, sizes, batch))
                        first, again = _run(path, feeds), _run(path, feeds)
                        if _least_snr(first, again) < np.inf:
                            return None
                        shown = list(_shown(model, feeds[0], samples))
                        with suppress(BuildError):  # Of a Spec that doesn't fit, which is said elsewhere.
                            return cls([*feeds, *shown], [*first, *_run(path, shown)])
                        return cls(feeds, first)
        return None

    def equals(self, path: Path, limit: float) -> bool:
        """Tell whether another form answers the same."""
        try:
            return _least_snr(self._answers, _run(path, self._feeds)) >= limit
        except BuildError:
            return False


def _feeds(path: Path, model: Model, free: int, batch: int) -> Iterator[dict[str, Array]]:
    """Yield random tensors for all inputs: between -1 and 1, and as pixels are."""
    fed = load.inputs(load.parse(path).proto.graph)
    for low, high in ((-1, 1), (0, 255)):
        random = np.random.default_rng(20261130)
        feeds = {}
        for value in fed:
            shape = list(load.shape_of(value) or (None,) * 4)
            is_picture = takes_picture(model.spec, value.name, len(fed))
            stated = (None, *model.require_spec().input.shape) if is_picture else ()
            known = [*stated, *[None] * len(shape)]
            sizes = [
                size if isinstance(size, int) else other or (batch if axis == 0 else free)
                for axis, (size, other) in enumerate(zip(shape, known, strict=False))
            ]
            dtype = np.dtype(load.dtype_of(value))
            values = random.uniform(low, high, sizes) if dtype.kind == "f" else random.integers(0, 2, sizes)
            feeds[value.name] = np.asarray(values.astype(dtype))
        yield feeds


def _shown(model: Model, random: Mapping[str, Array], samples: Sequence[Array]) -> Iterator[dict[str, Array]]:
    """Yield the same tensors with pictures in the place of the picture's."""
    for name in random:
        if takes_picture(model.spec, name, len(random)):
            yield from ({**random, name: np.stack([sample] * len(random[name]))} for sample in samples)


def _run(path: Path, feeds: Sequence[Mapping[str, Array]]) -> list[list[Any]]:
    with translate(BuildError, f"{path.name}: ONNX Runtime can't run it"):
        session = open_in_runtime(str(path), "DISABLE_ALL")
        return [session.run(None, dict(feed)) for feed in feeds]


def _least_snr(reference: Sequence[Sequence[Any]], other: Sequence[Sequence[Any]]) -> float:
    """Return the signal to noise of the worst output, in decibels; minus infinity where a shape or dtype differs."""
    worst = float("inf")
    for first, second in zip(_flat(reference), _flat(other), strict=True):
        if not isinstance(first, np.ndarray) or first.dtype.kind not in "fiub":
            worst = worst if np.array_equal(first, second) else float("-inf")
        elif first.shape != second.shape or first.dtype != second.dtype:
            return float("-inf")
        elif not np.array_equal(first, second, equal_nan=first.dtype.kind == "f"):
            worst = min(worst, deviation(first, second).snr_db)
    return worst


def _flat(answers: Sequence[Sequence[Any]]) -> list[Any]:
    return [value for answer in answers for value in answer]
