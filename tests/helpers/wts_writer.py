"""Write tensorrtx's `.wts`, and the tensors of a ResNet by torchvision's names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Tensors = dict[str, NDArray[np.float32]]


def write_wts(path: Path, tensors: Mapping[str, NDArray[np.float32]], *, short: bool = False) -> Path:
    """As tensorrtx's gen_wts.py does; `short`: without leading zeros, as C++ streams write numbers."""
    with path.open("w") as file:
        file.write(f"{len(tensors)}\n")
        for name, values in tensors.items():
            text = values.astype(">f4").tobytes().hex(" ", 4)
            text = re.sub("0*([0-9a-f]+)", r"\1", text) if short else text
            file.write(f"{name} {values.size} {text}\n")
    return path


def resnet_tensors(blocks: tuple[int, ...], *, bottleneck: bool, classes: int, seed: int = 0) -> Tensors:
    chance = np.random.default_rng(seed)
    out: Tensors = {}

    def convolution(name: str, norm: str, outputs: int, inputs: int, kernel: int) -> None:
        out[f"{name}.weight"] = chance.normal(
            0, (inputs * kernel**2 / 2) ** -0.5, (outputs, inputs, kernel, kernel)
        ).astype(np.float32)
        for part, low in (("weight", 0.5), ("bias", -0.2), ("running_mean", -0.3), ("running_var", 0.5)):
            out[f"{norm}.{part}"] = chance.uniform(low, low + 0.7, outputs).astype(np.float32)
        out[f"{norm}.num_batches_tracked"] = np.array([7], np.float32)

    convolution("conv1", "bn1", 64, 3, 7)
    channels = 64
    for stage, count in enumerate(blocks, 1):
        width = 32 << stage
        outputs = width * 4 if bottleneck else width
        for block in range(count):
            name = f"layer{stage}.{block}"
            sizes = (
                [(width, channels, 1), (width, width, 3), (outputs, width, 1)]
                if bottleneck
                else [(width, channels, 3), (width, width, 3)]
            )
            for index, (given, taken, kernel) in enumerate(sizes, 1):
                convolution(f"{name}.conv{index}", f"{name}.bn{index}", given, taken, kernel)
            if block == 0 and (stage > 1 or channels != outputs):
                convolution(f"{name}.downsample.0", f"{name}.downsample.1", outputs, channels, 1)
            channels = outputs
    out["fc.weight"] = chance.normal(0, 0.05, (classes, channels)).astype(np.float32)
    out["fc.bias"] = chance.normal(size=classes).astype(np.float32)
    return out
