"""Everything that only a GPU can tell, with one command: does each GPU target answer as ONNX Runtime does on the CPU,
and how fast.

    python benchmarks/gpu.py [--images examples/photos] [--targets tensorrt:gpu:float16 …] [--out gpu.json] [--no-tests]

For each target that `plimsoll targets` lists for GPUs: build open_nsfw for it (int8 and fp8 calibrated with half of the
images), hold its scores against the float32 network's on the CPU over the other half, and time batches of 1, 8 and 32
through `Runner`, copies to and from the GPU included. A target that isn't here, or fails, is a row with its reason.
Then the contract suite runs over the GPU targets. The table goes into docs/gpu.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll import backends, quantize
from plimsoll.backends.base import CalibrationData, ThreadPlan
from plimsoll.backends.runner import Runner
from plimsoll.core.model import Model
from plimsoll.core.target import Target
from plimsoll.errors import PlimsollError
from plimsoll.inference.images import find_images
from plimsoll.preprocessing import Preprocessor
from plimsoll.preprocessing.decode import read
from plimsoll.system import gpu, host
from plimsoll.zoo import card, catalog

ROOT = Path(__file__).parents[1]
BATCHES = (1, 8, 32)
SECONDS = 2.0
CALIBRATOR = "percentile"
PLAN = ThreadPlan(streams=2, threads=1)
LIMITS = {"float32": 1e-3, "float16": 5e-3, "bfloat16": 3e-2, "int8": 5e-2, "fp8": 8e-2}
"""How far a score may be from the CPU's; open_nsfw's decisions lie at 0.2 and 0.8."""

Pictures = NDArray[Any]


@dataclass
class Row:
    """What one target did."""

    target: str
    outcome: str
    """`passed`, `failed` or `not run`."""
    reason: str = ""
    build_s: float = 0.0
    deviation: float | None = None
    """The largest difference of a score to the CPU's."""
    milliseconds: dict[int, float] = field(default_factory=dict)
    """Median wall time of a call, by its batch size."""


def main() -> None:
    """Run all, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default=str(ROOT / "examples" / "photos"))
    parser.add_argument("--targets", nargs="*", help="only these")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--no-tests", action="store_true", help="leave the contract suite out")
    given = parser.parse_args()
    model = Model(catalog.fetch("open_nsfw"), "onnx", card("open_nsfw").spec)
    preprocessor = Preprocessor(model.require_spec().input, "reference")
    tensors = np.stack([preprocessor(read(Path(path))) for path in find_images([given.images])])
    calibrate, judge = tensors[::2], tensors[1::2]
    with Runner.open(model, Target("onnxruntime")) as runner:
        expected = next(iter(runner.infer(judge).values()))
    rows = []
    with tempfile.TemporaryDirectory(prefix="plimsoll-gpu-") as folder:
        for offer in (
            offer for name in backends.names() for offer in backends.get(name).targets() if offer.target.device == "gpu"
        ):
            if given.targets and str(offer.target) not in given.targets:
                continue
            row = (
                Row(str(offer.target), "not run", offer.missing)
                if offer.missing
                else measured(model, offer.target, calibrate, (judge, expected), Path(folder))
            )
            rows.append(row)
            print(
                f"{row.target}: {row.outcome} {row.reason or f'deviation {row.deviation:.2g}, {row.milliseconds}'}",
                flush=True,
            )
    facts = {
        "gpus": [str(device) for device in gpu.gpus()],
        "machine": host.describe(),
        "versions": versions(),
        "images": len(judge),
    }
    contract = None if given.no_tests else suite()
    given.out.write_text(
        json.dumps({**facts, "contract": contract, "rows": [asdict(row) for row in rows]}, indent=2) + "\n",
        encoding="utf-8",
    )
    print("\n" + table(rows))
    sys.exit(any(row.outcome == "failed" for row in rows) or bool(contract and contract["failed"]))


def measured(model: Model, target: Target, calibrate: Pictures, judged: tuple[Pictures, Pictures], folder: Path) -> Row:
    """Build, compare and time one target."""
    row = Row(str(target), "failed")
    target_folder = folder / str(target).replace(":", "-")
    target_folder.mkdir()
    started = time.perf_counter()
    try:
        built = prepared(model, target, calibrate, target_folder)
        with Runner.open(built, target, plan=PLAN) as runner:
            row.build_s = round(time.perf_counter() - started, 1)
            outputs = np.concatenate([next(iter(runner.infer(part).values())) for part in np.array_split(judged[0], 3)])
            row.deviation = float(np.abs(outputs - judged[1]).max())
            row.milliseconds = {batch: round(1000 * milliseconds(runner, judged[0], batch), 3) for batch in BATCHES}
    except PlimsollError as error:
        row.reason = str(error)
    except Exception as error:  # noqa: BLE001 - what nobody foresaw is a row too
        row.reason = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    else:
        limit = LIMITS[target.precision]
        row.outcome, row.reason = (
            ("passed", "")
            if row.deviation <= limit
            else ("failed", f"deviation {row.deviation:.3g}, at most {limit:g} is allowed")
        )
    return row


def prepared(model: Model, target: Target, calibrate: Pictures, folder: Path) -> Model:
    """Return the network in the form that the target needs, built where it is built from more than a network."""
    backend = backends.get(target.runtime)
    form = backend.onnx_form(target)
    batches = np.array_split(calibrate, 4)
    if form == "float16":
        return quantize.float16(model, folder)
    if form == "qdq":
        return quantize.static(
            model,
            quantize.calibrate(model, batches, method=CALIBRATOR),
            folder,
            quantize.StaticOptions.for_target(target),
        )
    if backend.takes_calibration(target):
        calibration = quantize.calibrate(model, batches, method=CALIBRATOR)
        return backend.build(model, target, folder, CalibrationData(calibration.method, calibrate, calibration.ranges))
    return model


def milliseconds(runner: Runner, tensors: Pictures, batch: int) -> float:
    """Return the median seconds of a call with so many pictures."""
    pictures = np.concatenate([tensors] * (1 + batch // len(tensors)))[:batch]
    for _ in range(3):
        runner.infer(pictures)
    took: list[float] = []
    while sum(took) < SECONDS or len(took) < 10:
        started = time.perf_counter()
        runner.infer(pictures)
        took.append(time.perf_counter() - started)
    return statistics.median(took)


def suite() -> dict[str, Any]:
    """Run the contract suite over the GPU targets, and the tests of TensorRT and PyTorch."""
    files = [
        str(ROOT / "tests" / "backends" / name)
        for name in ("test_contract.py", "test_torch.py", "test_tensorrt.py", "test_onnxruntime_gpu.py")
    ]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *files, "-k", "gpu or torch or tensorrt"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    print(run.stdout[-3000:])
    return {"failed": run.returncode not in (0, 5), "summary": run.stdout.strip().splitlines()[-1:]}


def versions() -> dict[str, str]:
    """Return the runtimes' versions, of those that are installed."""
    from importlib import metadata

    result = {}
    for name in ("torch", "triton", "onnxruntime-gpu", "onnxruntime", "tensorrt", "tensorrt-cu13", "tensorrt-cu12"):
        try:
            result[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return result


def table(rows: list[Row]) -> str:
    """Return the support table as Markdown."""
    head = (
        f"| target | outcome | largest deviation | {' | '.join(f'ms, batch {batch}' for batch in BATCHES)} | built"
        " in |\n"
    )
    lines = [head + "| --- | --- | ---: |" + " ---: |" * (len(BATCHES) + 1)]
    for row in rows:
        times = [f"{row.milliseconds[batch]:.2f}" if batch in row.milliseconds else "" for batch in BATCHES]
        outcome = row.outcome + (f": {' '.join(row.reason.split())}" if row.reason else "")
        cells = [
            f"`{row.target}`",
            outcome,
            "" if row.deviation is None else f"{row.deviation:.2g}",
            *times,
            f"{row.build_s:.0f} s" if row.build_s else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
