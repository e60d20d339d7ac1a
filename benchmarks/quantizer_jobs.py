"""Quantize a network with another tool, in that tool's own environment, where `benchmarks/quantizers.py` runs this.

    ENVIRONMENT/bin/python benchmarks/quantizer_jobs.py TOOL NETWORK CALIBRATION.npz OUTPUT

It imports NumPy and the tool, nothing of Plimsoll. `CALIBRATION.npz` has each input's tensors, `[N, …]`, under its
name. Every tool gets the settings of its own documentation for a processor; TOOL says which.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Feeds = dict[str, NDArray[Any]]

# Tools that report their use are told not to before they are imported.
os.environ |= {"NNCF_CI": "1", "CI": "true", "ORT_DISABLE_TELEMETRY": "1", "CUDA_VISIBLE_DEVICES": ""}


class Calibration:
    """The calibration pictures as ONNX Runtime's CalibrationDataReader: one picture a call, then None."""

    def __init__(self, tensors: Feeds) -> None:
        self._tensors = tensors
        self.rewind()

    def __iter__(self) -> Iterator[Feeds]:
        for index in range(len(next(iter(self._tensors.values())))):
            yield {name: value[index : index + 1] for name, value in self._tensors.items()}

    def __len__(self) -> int:
        return len(next(iter(self._tensors.values())))

    def get_next(self) -> Feeds | None:
        """Return the next picture's feeds."""
        return next(self._rest, None)

    def rewind(self) -> None:
        """Start again."""
        self._rest = iter(self)

    reset_iter = rewind


def onnx_runtime(network: Path, calibration: Calibration, output: Path, **settings: Any) -> None:
    """ONNX Runtime's own quantizer, after its `quant_pre_process`."""
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = output.with_suffix(".prepared.onnx")
    quant_pre_process(str(network), str(prepared), skip_symbolic_shape=True)
    types = {"activation_type": QuantType.QUInt8, "per_channel": True} if settings.get("per_channel") else {}
    quantize_static(str(prepared), str(output), calibration, **types)


def nncf(network: Path, calibration: Calibration, output: Path, **settings: Any) -> None:
    """NNCF's post-training quantization of an OpenVINO network."""
    import nncf
    import openvino

    preset = nncf.QuantizationPreset.MIXED if settings.get("mixed") else None
    kind = nncf.ModelType.TRANSFORMER if settings.get("transformer") else None
    model = openvino.Core().read_model(str(network))
    dataset = nncf.Dataset(list(calibration))
    quantized = nncf.quantize(model, dataset, preset=preset, model_type=kind, subset_size=len(calibration))
    openvino.save_model(quantized, str(output), compress_to_fp16=False)


def quark(network: Path, calibration: Calibration, output: Path, **settings: Any) -> None:
    """AMD Quark's quantizer for ONNX, alone or followed by AdaRound or AdaQuant, which train the weights' rounding."""
    from quark.onnx import ModelQuantizer
    from quark.onnx.quantization.config import Config, get_default_config

    chosen = get_default_config(settings["config"])
    if fine_tuning := chosen.extra_options.get("FastFinetune"):
        fine_tuning |= {"OptimDevice": "cpu", "InferDevice": "cpu", "NumIterations": settings["iterations"]}
    ModelQuantizer(Config(global_quant_config=chosen)).quantize_model(str(network), str(output), calibration)


def model_optimizer(network: Path, calibration: Calibration, output: Path, **settings: Any) -> None:
    """NVIDIA Model Optimizer's quantizer for ONNX."""
    from modelopt.onnx.quantization import quantize

    tensors = {name: np.concatenate([feeds[name] for feeds in calibration]) for name in next(iter(calibration))}
    quantize(
        str(network),
        quantize_mode="int8",
        calibration_data=tensors,
        calibration_method=settings["method"],
        calibration_eps=["cpu"],
        output_path=str(output),
        high_precision_dtype="fp32",
    )


def ai_edge(network: Path, calibration: Calibration, output: Path) -> None:
    """ai-edge-quantizer: int8 activations and weights of a float .tflite file."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    signature, names = next(iter(Interpreter(str(network)).get_signature_list().items()))
    feeds = [dict(zip(names["inputs"], tensors.values(), strict=True)) for tensors in calibration]
    tool = quantizer.Quantizer(str(network), recipe.static_wi8_ai8())
    tool.quantize(tool.calibrate({signature: feeds})).export_model(str(output))


Job = Callable[[Path, Calibration, Path], None]


def _with(job: Callable[..., None], **settings: Any) -> Job:
    return lambda network, calibration, output: job(network, calibration, output, **settings)


JOBS: dict[str, Job] = {
    "onnxruntime": _with(onnx_runtime),
    "onnxruntime-uint8-per-channel": _with(onnx_runtime, per_channel=True),
    "nncf": _with(nncf),
    "nncf-mixed": _with(nncf, mixed=True),
    "nncf-transformer": _with(nncf, transformer=True),
    "quark": _with(quark, config="A8W8"),
    "quark-uint8": _with(quark, config="U8S8_AAWS"),
    "quark-adaround": _with(quark, config="U8S8_AAWS_ADAROUND", iterations=300),
    "quark-adaquant": _with(quark, config="U8S8_AAWS_ADAQUANT", iterations=300),
    "ai-edge": ai_edge,
    "modelopt-entropy": _with(model_optimizer, method="entropy"),
    "modelopt-max": _with(model_optimizer, method="max"),
}


def main() -> None:
    """Run a job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", choices=list(JOBS))
    parser.add_argument("network", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    with np.load(options.calibration) as stored:
        calibration = Calibration({name: stored[name] for name in stored.files})
    JOBS[options.tool](options.network, calibration, options.output)


if __name__ == "__main__":
    main()
