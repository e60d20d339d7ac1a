"""ONNX → ncnn in float32, by the program in pnnx's wheel.

Expects fixed sizes everywhere and a batch of one. The wheel's Python package is not imported: it would ask for PyTorch.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from plimsoll_job import RefusedError


def run(request: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    work = Path("converted").absolute()
    work.mkdir()
    shutil.copy(inputs["model"], work / "network.onnx")
    shapes = ",".join("[" + ",".join(map(str, shape)) + "]" for shape in request["shapes"])
    # In float16 it would flush to zero what float16 can hold as subnormal numbers.
    done = subprocess.run(
        [_program(), "network.onnx", f"inputshape={shapes}", "fp16=0"], cwd=work, stdin=subprocess.DEVNULL, check=False
    )
    converted = [work / f"network.ncnn.{kind}" for kind in ("param", "bin")]
    if done.returncode != 0 or not all(file.is_file() for file in converted):
        crashed = f"crashed ({signal.Signals(-done.returncode).name})" if done.returncode < 0 else "gave up"
        raise RuntimeError(f"pnnx, which converts for ncnn, {crashed} on this network")
    for file in converted:
        shutil.move(file, out / f"network{file.suffix}")
    # Where pnnx makes out which axis counts pictures it drops that axis, which is 0; else it writes 233 and keeps them
    # all. Its sample says so.
    sample = (work / "network_ncnn.py").read_text(encoding="utf-8")
    axes = dict(re.findall(r'input\("(in\d+)", ncnn\.Mat\(in\d+\.numpy\(\), batch_index=(\d+)\)', sample))
    return {"batch_axes": [int(axes.get(f"in{number}", -1)) for number in range(len(request["shapes"]))]}


def _program() -> str:
    spec = importlib.util.find_spec("pnnx")
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    program = Path(places[0]) / ("pnnx.exe" if os.name == "nt" else "pnnx") if places else None
    if program is None or not program.is_file():
        raise RefusedError(
            "the program is missing in pnnx's wheel",
            "Make the toolchain again: `plimsoll toolchains remove pnnx`, then `plimsoll toolchains make pnnx`.",
        )
    return str(program)
