"""Build an engine, in a process of its own: see `construction`."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plimsoll.backends.tensorrt import calibration, engine, runtime
from plimsoll.backends.tensorrt.options import TensorRtOptions
from plimsoll.core.foreign import translate
from plimsoll.errors import BuildError
from plimsoll.system import files, gpu

_FLAGS = {"float32": (), "float16": ("FP16",), "bfloat16": ("BF16",), "int8": ("INT8",), "fp8": ("FP8",)}
"""What TensorRT 10 is allowed beside float32, as members of BuilderFlag. TensorRT 11 has none of them."""
_QUANTIZED = ("int8", "fp8")
_MIB = 1 << 20


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Build and write engine, facts and calibration cache into `payload["out"]`; raises BuildError."""
    options = TensorRtOptions.model_validate(payload["options"])
    out = Path(payload["out"])
    device = gpu.Device(options.device)
    try:
        with translate(BuildError, "TensorRT failed"):
            content = _Build(payload, options, device).content(out)
    finally:
        device.close()
    target = out / engine.ENGINE
    target.write_bytes(content)
    here = gpu.at(options.device)
    facts = engine.EngineFacts(
        tensorrt=runtime.version(),
        gpu=here.name,
        capability=here.capability,
        hardware=options.hardware,
        precision=payload["precision"],
        network=payload["sha256"],
        engine=hashlib.sha256(content).hexdigest(),
        plugins=options.library_digests(),
    )
    facts.write(target)
    return {}


class _Build:
    """One engine under construction."""

    def __init__(self, payload: dict[str, Any], options: TensorRtOptions, device: gpu.Device) -> None:
        self._payload = payload
        self._options = options
        self._device = device
        self._tensorrt = runtime.load()
        self._log = runtime.logger()
        runtime.load_plugins(self._log, options.libraries)
        self._builder = self._tensorrt.Builder(self._log)
        self._network = self._builder.create_network(self._typing())
        self._config = self._builder.create_builder_config()

    @property
    def _weakly_typed(self) -> bool:
        return runtime.generation() == runtime.WEAKLY_TYPED

    def _typing(self) -> int:
        """Return the flags of the network. TensorRT 10 chooses types itself by default; 11 never does."""
        return 0 if self._weakly_typed else 1 << int(self._tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)

    def content(self, out: Path) -> bytes:
        """Return the engine; raises BuildError with TensorRT's errors."""
        self._parse()
        self._configure()
        self._profile()
        calibrator = self._calibrate(out)
        timings = engine.timing_file(gpu.at(self._options.device), runtime.version())
        self._read_timings(timings)
        plan = self._builder.build_serialized_network(self._network, self._config)
        if plan is None:
            raise BuildError(
                f"it can't build this network{runtime.recent_errors(self._log)}",
                "The whole log: set the logger plimsoll.tensorrt to DEBUG.",
            )
        if calibrator is not None:
            calibrator.close()
        self._write_timings(timings)
        return bytes(plan)

    def _parse(self) -> None:
        parser = self._tensorrt.OnnxParser(self._network, self._log)
        if parser.parse_from_file(self._payload["network"]):
            return
        errors = [parser.get_error(index) for index in range(min(parser.num_errors, 3))]
        reasons = "; ".join(
            f"{error.node_operator() or 'the graph'} '{error.node_name()}': {error.desc()}" for error in errors
        )
        raise BuildError(
            f"its parser refuses the network: {reasons or runtime.recent_errors(self._log)}",
            "An operator that it lacks can come from a plugin: --set plugins=…",
        )

    def _configure(self) -> None:
        options, config, tensorrt = self._options, self._config, self._tensorrt
        flags = tensorrt.BuilderFlag
        if not options.tf32:
            config.clear_flag(flags.TF32)
        if self._weakly_typed:
            beside = ("FP16",) if options.float16_beside and self._payload["precision"] in _QUANTIZED else ()
            for name in (*_FLAGS[self._payload["precision"]], *beside):
                config.set_flag(getattr(flags, name))
        if options.workspace_mb is not None:
            config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, options.workspace_mb * _MIB)
        if options.effort is not None:
            config.builder_optimization_level = options.effort
        levels = tensorrt.HardwareCompatibilityLevel
        if options.hardware != "this":
            config.hardware_compatibility_level = (
                levels.AMPERE_PLUS if options.hardware == "ampere_plus" else levels.SAME_COMPUTE_CAPABILITY
            )

    def _inputs(self) -> list[Any]:
        return [self._network.get_input(index) for index in range(self._network.num_inputs)]

    def _profile(self) -> None:
        """Say which batches the engine is for; nothing where all sizes are fixed."""
        options = self._options
        if not any(-1 in tuple(tensor.shape) for tensor in self._inputs()):
            return
        profile = self._builder.create_optimization_profile()
        for tensor in self._inputs():
            shapes = [
                shape_for(tensor.name, tuple(tensor.shape), batch, self._payload["sizes"])
                for batch in (options.min_batch, options.best_batch, options.max_batch)
            ]
            profile.set_shape(tensor.name, *shapes)
        if self._config.add_optimization_profile(profile) < 0:
            raise BuildError(
                f"it refuses batches from {options.min_batch} to {options.max_batch}{runtime.recent_errors(self._log)}"
            )

    def _calibrate(self, out: Path) -> calibration.Feeder | None:
        """Give TensorRT 10 a calibrator where the network isn't quantized already."""
        given = self._payload["calibration"]
        if given is None:
            return None
        inputs = self._inputs()
        if len(inputs) != 1:
            raise BuildError(
                f"its calibrators are fed pictures; this network has {len(inputs)} inputs",
                "Quantize it first with plimsoll.quantize.static.",
            )
        feeder = calibration.Feeder.of(
            given,
            self._device,
            out / engine.CALIBRATION,
            self._options.best_batch if inputs[0].shape[0] < 0 else inputs[0].shape[0],
        )
        if inputs[0].shape[0] < 0:
            profile = self._builder.create_optimization_profile()
            shape = shape_for(inputs[0].name, tuple(inputs[0].shape), feeder.batch, self._payload["sizes"])
            profile.set_shape(inputs[0].name, shape, shape, shape)
            self._config.set_calibration_profile(profile)
        self._config.int8_calibrator = calibration.calibrator(feeder)
        return feeder

    def _read_timings(self, file: Path) -> None:
        """Start from the kernels' timings of earlier builds; from none where they can't be read or are another
        GPU's."""
        content = b""
        with contextlib.suppress(OSError):
            content = file.read_bytes()
        cache = self._config.create_timing_cache(content)
        if not self._config.set_timing_cache(cache, False):
            self._config.set_timing_cache(self._config.create_timing_cache(b""), False)
            self._log.errors.clear()

    def _write_timings(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        files.write(file, bytes(self._config.get_timing_cache().serialize()))


def shape_for(name: str, shape: Sequence[int], batch: int, sizes: Sequence[int | None]) -> tuple[int, ...]:
    """Return an input's shape with its free sizes (-1) filled in: the batch, and the picture's sizes by the Spec.
    Raises BuildError."""
    given = [None, *sizes] if len(sizes) == len(shape) - 1 else [None] * len(shape)
    filled = [batch if shape[:1] and shape[0] < 0 else size for size in shape[:1]] + list(shape[1:])
    for axis in range(1, len(filled)):
        if filled[axis] < 0:
            size = given[axis]
            if size is None:
                raise BuildError(
                    f"the input '{name}' is {list(shape)}: its size is free along axis {axis}",
                    "Fix it in the network, or with a resize step in the Spec.",
                )
            filled[axis] = size
    return tuple(filled)
