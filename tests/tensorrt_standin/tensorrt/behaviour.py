"""What the stand-in's objects do: they parse ONNX with onnx and compute with ONNX Runtime, or, for bfloat16, with
ONNX's own evaluator."""

from __future__ import annotations

import base64
import ctypes
import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

import tensorrt

SUBCLASSED = ("ILogger", "IOutputAllocator", "IInt8EntropyCalibrator2", "IInt8MinMaxCalibrator")
MAGIC = b"stand-in plan "
_CALIBRATOR_TAG = {"IInt8EntropyCalibrator2": "EntropyCalibration2", "IInt8MinMaxCalibrator": "MinMaxCalibration"}


def instance_of(name: str, real: Any = None) -> Any:
    """Return an object that nobody constructs, but a method returns."""
    kind = getattr(tensorrt, name)
    instance = object.__new__(kind)
    object.__setattr__(instance, "_real", real if real is not None else kind._behaviour())
    return instance


def _complain(logger: Any, text: str) -> None:
    logger.log(tensorrt.ILogger.Severity.ERROR, text)


class IPluginRegistry:
    def load_library(self, plugin_path: str) -> Any:
        return None if Path(plugin_path).read_bytes() == b"bad" else object()


class ITensor(SimpleNamespace):
    """name, shape, dtype."""


class INetworkDefinition:
    def __init__(self) -> None:
        self.proto = onnx.ModelProto()

    @property
    def _inputs(self) -> list[Any]:
        stored = {tensor.name for tensor in self.proto.graph.initializer}
        return [tensor for tensor in self.proto.graph.input if tensor.name not in stored]

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    def get_input(self, index: int) -> Any:
        value = self._inputs[index]
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim)
        return instance_of("ITensor", ITensor(name=value.name, shape=shape))


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:  # noqa: A002 - TensorRT's names
        self.shapes[input] = [list(min), list(opt), list(max)]


class ITimingCache:
    def __init__(self, content: bytes = b"") -> None:
        self.content = content

    def serialize(self) -> Any:
        return instance_of("IHostMemory", IHostMemory(self.content + b"+"))


class IHostMemory:
    def __init__(self, content: bytes = b"") -> None:
        self.content = content


class IBuilderConfig:
    def __init__(self) -> None:
        self.flags = {"TF32"}
        self.profiles: list[Any] = []
        self.calibration_profile: Any = None
        self.int8_calibrator: Any = None
        self.workspace = 0
        self.builder_optimization_level = 3
        self.hardware_compatibility_level = tensorrt.HardwareCompatibilityLevel.NONE
        self.cache: Any = None

    def set_flag(self, flag: Any) -> None:
        self.flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag.name)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        assert pool.name == "WORKSPACE"
        self.workspace = pool_size

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile._real)
        return len(self.profiles) - 1

    def set_calibration_profile(self, profile: Any) -> bool:
        self.calibration_profile = profile._real
        return True

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
        return instance_of("ITimingCache", ITimingCache(bytes(serialized_timing_cache)))

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        if cache._real.content.startswith(b"foreign") and not ignore_mismatch:
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self.cache


class Builder:
    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def create_network(self, flags: int = 0) -> Any:
        if tensorrt.__version__.startswith("10"):
            assert flags in (0, 1 << tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        return instance_of("INetworkDefinition")

    def create_builder_config(self) -> Any:
        return instance_of("IBuilderConfig")

    def create_optimization_profile(self) -> Any:
        return instance_of("IOptimizationProfile")

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        network, config = network._real, config._real
        if "crash" in network.proto.graph.name:
            ctypes.string_at(0)
        free = [network.get_input(index) for index in range(network.num_inputs)]
        if any(-1 in instance.shape for instance in free) and not config.profiles:
            _complain(self.logger, "Network has dynamic or shape inputs, but no optimization profile has been defined.")
            return None
        cache = self._calibrate(network, config) if config.int8_calibrator is not None else ""
        facts = {
            "onnx": base64.b64encode(network.proto.SerializeToString()).decode(),
            "profile": config.profiles[0].shapes if config.profiles else {},
            "flags": sorted(config.flags),
            "workspace": config.workspace,
            "effort": config.builder_optimization_level,
            "hardware": config.hardware_compatibility_level.name,
            "timings": len(config.cache._real.content),
            "calibration": cache,
        }
        return instance_of("IHostMemory", IHostMemory(MAGIC + json.dumps(facts).encode()))

    def _calibrate(self, network: INetworkDefinition, config: IBuilderConfig) -> str:
        calibrator, picture = config.int8_calibrator, network.get_input(0)
        assert calibrator._initialized
        if given := calibrator.read_calibration_cache():
            return bytes(given).decode()
        batch = calibrator.get_batch_size()
        sizes = (
            config.calibration_profile.shapes[picture.name][1] if config.calibration_profile else list(picture.shape)
        )
        assert sizes[0] == batch
        seen, largest = 0, 0.0
        while addresses := calibrator.get_batch([picture.name]):
            seen += batch
            largest = max(largest, float(np.abs(_memory(addresses[0], sizes, "float32")).max()))
        tag = next(
            _CALIBRATOR_TAG[base.__name__] for base in type(calibrator).__mro__ if base.__name__ in _CALIBRATOR_TAG
        )
        text = f"TRT-101601-{tag}\n{picture.name}: {np.float32(largest / 127).tobytes()[::-1].hex()}\n"
        calibrator.write_calibration_cache(text.encode())
        return f"{seen} pictures, {text}"


class OnnxParser:
    def __init__(self, network: Any, logger: Any) -> None:
        self.network, self.logger, self.errors = network, logger, list[Any]()

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def parse_from_file(self, model: str) -> bool:
        proto = onnx.load(model)
        for node in proto.graph.node:
            if node.op_type not in {"Loop"}:
                continue
            self.errors.append(instance_of("ParserError", ParserError(node)))
        self.network._real.proto = proto
        return not self.errors

    def get_error(self, index: int) -> Any:
        return self.errors[index]


class ParserError:
    def __init__(self, node: Any) -> None:
        self._node = node

    def desc(self) -> str:
        return "No importer registered for op"

    def node_operator(self) -> str:
        return str(self._node.op_type)

    def node_name(self) -> str:
        return str(self._node.name)


class Runtime:
    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        if not bytes(serialized_engine).startswith(MAGIC):
            _complain(self.logger, "Serialization assertion plan->header.magicTag == kPLAN_MAGIC_TAG failed.")
            return None
        return instance_of("ICudaEngine", ICudaEngine(json.loads(serialized_engine[len(MAGIC) :]), self.logger))


class ICudaEngine:
    def __init__(self, facts: dict[str, Any], logger: Any) -> None:
        self.facts, self.logger = facts, logger
        self.proto = onnx.ModelProto.FromString(base64.b64decode(facts["onnx"]))
        self.compute = _computer(self.proto)
        stored = {tensor.name for tensor in self.proto.graph.initializer}
        inputs = [tensor for tensor in self.proto.graph.input if tensor.name not in stored]
        self.values = {tensor.name: (tensor, tensorrt.TensorIOMode.INPUT) for tensor in inputs} | {
            tensor.name: (tensor, tensorrt.TensorIOMode.OUTPUT) for tensor in self.proto.graph.output
        }

    @property
    def num_io_tensors(self) -> int:
        return len(self.values)

    def get_tensor_name(self, index: int) -> str:
        return str(list(self.values)[index])

    def get_tensor_mode(self, name: str) -> Any:
        return self.values[name][1]

    def get_tensor_location(self, name: str) -> Any:
        return tensorrt.TensorLocation.DEVICE if name in self.values else None

    def get_tensor_dtype(self, name: str) -> Any:
        kinds = {1: "FLOAT", 10: "HALF", 6: "INT32", 7: "INT64", 2: "UINT8", 9: "BOOL", 16: "BF16"}
        return tensorrt.DataType[kinds[self.values[name][0].type.tensor_type.elem_type]]

    def dims(self, name: str) -> list[Any]:
        return [
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param
            for dim in self.values[name][0].type.tensor_type.shape.dim
        ]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else -1 for size in self.dims(name))

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Any]:
        assert profile_index == 0
        return [tuple(shape) for shape in self.facts["profile"][name]]

    def create_execution_context(self) -> Any:
        return instance_of("IExecutionContext", IExecutionContext(self))


class IExecutionContext:
    def __init__(self, engine: ICudaEngine | None = None) -> None:
        assert engine is not None
        self.engine = engine
        self.thread = threading.get_ident()
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.allocators: dict[str, Any] = {}

    def _mine(self) -> bool:
        if threading.get_ident() == self.thread:
            return True
        _complain(self.engine.logger, "Cuda failure: invalid device context: the context belongs to another thread")
        return False

    def set_input_shape(self, name: str, shape: Any) -> bool:
        profile = self.engine.facts["profile"].get(name)
        declared = self.engine.get_tensor_shape(name)
        fits = all(want in (-1, have) for want, have in zip(declared, shape, strict=True))
        if not fits or (
            profile
            and not all(low <= have <= high for low, have, high in zip(profile[0], shape, profile[2], strict=True))
        ):
            _complain(
                self.engine.logger,
                f"Set dimension {list(shape)} for tensor {name} does not satisfy any optimization profiles.",
            )
            return False
        self.shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        return [
            name
            for name, (_, mode) in self.engine.values.items()
            if mode == tensorrt.TensorIOMode.INPUT and name not in self.shapes
        ]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        known = {
            free: size
            for instance, shape in self.shapes.items()
            for free, size in zip(self.engine.dims(instance), shape, strict=True)
        }
        return tuple(size if isinstance(size, int) else known.get(size, -1) for size in self.engine.dims(name))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return memory != 0

    def set_output_allocator(self, name: str, output_allocator: Any) -> bool:
        self.allocators[name] = output_allocator
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        if not self._mine() or not stream_handle:
            return False
        feeds = {
            name: _memory(self.addresses[name], shape, _dtype(self.engine, name)).copy()
            for name, shape in self.shapes.items()
        }
        for name, value in self.engine.compute(feeds).items():
            if name in self.allocators:
                self.addresses[name] = self.allocators[name].reallocate_output_async(
                    name, 0, value.nbytes, 256, stream_handle
                )
                self.allocators[name].notify_shape(name, value.shape)
            if value.size:
                _memory(self.addresses[name], value.shape, str(value.dtype))[...] = value
        return True


def _dtype(engine: ICudaEngine, name: str) -> str:
    names = {
        "FLOAT": "float32",
        "HALF": "float16",
        "UINT8": "uint8",
        "INT32": "int32",
        "INT64": "int64",
        "BOOL": "bool",
    }
    return names[str(engine.get_tensor_dtype(name).name)]


def _memory(address: int, shape: Any, dtype: str) -> NDArray[Any]:
    count = int(np.prod(shape))
    block = (ctypes.c_byte * (count * np.dtype(dtype).itemsize)).from_address(address)
    return np.frombuffer(memoryview(block), dtype).reshape(shape)


def _computer(proto: Any) -> Any:
    """Return what computes all outputs of a network."""
    names = [tensor.name for tensor in proto.graph.output]
    if any(
        attribute.name == "to" and attribute.i == onnx.TensorProto.BFLOAT16
        for node in proto.graph.node
        for attribute in node.attribute
    ):
        evaluator = ReferenceEvaluator(proto)
        return lambda feeds: dict(zip(names, map(np.asarray, evaluator.run(None, feeds)), strict=True))
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.graph_optimization_level = (
        onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    )  # it would fuse fp8 into what it can't compute
    session = onnxruntime.InferenceSession(proto.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return lambda feeds: dict(zip(names, session.run(names, feeds), strict=True))
