"""Run the JavaScript of a web package in Node, for tests and benchmarks."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.spec import Input

SITE = Path(str(files("plimsoll.export.web").joinpath("site")))
_PROGRAMS = Path(__file__).resolve().parents[1] / "programs"
HAS_NODE = shutil.which("node") is not None


def node(program: str, *arguments: str) -> Any:
    """Run a program of `tests/programs` and return the JSON that it prints."""
    done = subprocess.run(
        ["node", str(_PROGRAMS / program), *arguments], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def tensors(jobs: Sequence[tuple[Input, Path]], folder: Path) -> list[NDArray[Any] | str]:
    """Return for each Spec's input and picture file the tensor that the JavaScript steps make, or their refusal in
    words."""
    request = [
        [spec.model_dump(mode="json"), str(file), str(folder / f"{index}.bin")]
        for index, (spec, file) in enumerate(jobs)
    ]
    (folder / "request.json").write_text(json.dumps(request))
    answers: list[dict[str, Any]] = node("web_steps.mjs", str(folder / "request.json"), str(SITE / "steps.js"))
    values: list[NDArray[Any] | str] = []
    for (_, _, out), answer in zip(request, answers, strict=True):
        values.append(
            answer["error"]
            if "error" in answer
            else np.fromfile(str(out), np.dtype(str(answer["dtype"]))).reshape(answer["shape"])
        )
    return values
