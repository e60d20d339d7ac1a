"""Measure docs/support.md's real networks: every network × every target of this machine's processor.

    python -m support.measure RESULTS.jsonl [--networks a,b] [--targets mnn,ncnn:cpu:int8] [--again refused,wrong]

Each cell runs in a process of its own (support.cell) and adds a line to the results, so a run that was stopped goes on
where it was; `--again` repeats cells by their outcome, a later line counts. $PHOTOS is the folder of photographs
(default: examples/photos): every second one calibrates, the others judge.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import math
import os
import shutil
import subprocess
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from plimsoll import backends
from plimsoll.errors import PlimsollError
from plimsoll.spec import files as spec_files
from plimsoll.system.subprocesses import JobError, ProcessLimits, run_job
from support import catalogue
from support.catalogue import Network
from support.pictures import shown

ROOT = Path(__file__).resolve().parent.parent.parent
LIMITS = ProcessLimits(900, 8_000_000_000)
FLOORS = {"float32": 60.0, "float16": 30.0, "bfloat16": 20.0}
"""Decibels below which an answer is wrong; other precisions are of whole numbers."""
WHOLE_NUMBERS = 10.0
SAME = 999.0
"""How infinitely many decibels are written."""
JUDGES, CALIBRATION = 29, 16
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """What came of a network on a target."""

    network: str
    target: str
    outcome: str
    """`right`, `wrong`, `refused`, or `broken` where the process ended without a word of Plimsoll's."""
    reason: str = ""
    decibels: dict[str, float] = field(default_factory=dict)
    """Column → signal to noise."""
    answers: str = ""
    """What became of the decoded answers, where the task decodes any."""
    seconds: float = 0.0
    """What the conversion took."""
    commit: str = ""
    older: bool = False
    """Whether it was measured before the last change that may have changed it; written by hand."""

    @property
    def worst(self) -> float:
        """The worst column's signal to noise."""
        return min(self.decibels.values(), default=math.inf)


def read(file: Path) -> dict[tuple[str, str], Cell]:
    """Return the last result of each cell."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    cells = (Cell(**json.loads(line)) for line in lines)
    return {(cell.network, cell.target): cell for cell in cells}


def targets() -> list[str]:
    """Return this machine's targets on its processor, but for ONNX Runtime's in browsers and the reference."""
    offers = [offer for name in backends.names() for offer in backends.get(name).targets()]
    return [
        str(offer.target)
        for offer in offers
        if not offer.missing and offer.target.device == "cpu" and offer.target.runtime != "reference"
    ]


def photographs() -> tuple[list[str], list[str]]:
    """Return the photographs that judge, and those that calibrate."""
    folder = Path(os.environ.get("PHOTOS", ROOT / "examples" / "photos"))
    photos = sorted(str(path) for path in folder.iterdir() if path.suffix.lower() in {".jpg", ".jpeg"})
    return spread(photos[::2], JUDGES), spread(photos[1::2], CALIBRATION)


def spread(photos: Sequence[str], count: int) -> list[str]:
    """Return at most `count`, evenly spread."""
    return [photos[index * len(photos) // count] for index in range(count)] if len(photos) > count else list(photos)


class Measurement:
    """A network's files and reference answers, in a folder of its own."""

    def __init__(
        self, name: str, network: Network, folder: Path, photos: Sequence[str], calibration: Sequence[str]
    ) -> None:
        self.name, self.folder = name, folder
        self.photos, self.calibration = (
            shown(network.pictures, some, folder / "pictures") for some in (photos, calibration)
        )
        folder.mkdir(parents=True, exist_ok=True)
        self.file = catalogue.fetch(name, network, folder)
        self.spec = folder / "spec.toml"
        self.spec.write_text(spec_files.dumps(network.contract_spec), encoding="utf-8")
        self.answers = folder / f"answers-{zlib.crc32(repr(self.photos).encode()):08x}.npz"
        if not self.answers.is_file():
            self._job("reference", folder / "reference")

    def cells(self, targets: Sequence[str]) -> Iterator[Cell]:
        """Measure targets of one runtime in one process, which starts once; each in its own where that one dies."""
        try:
            results = self._results(targets)
        except JobError as error:
            if len(targets) == 1:
                yield Cell(self.name, targets[0], "broken", error.message, commit=commit())
                return
            for target in targets:
                yield from self.cells([target])
            return
        for target, result in results.items():
            yield self._cell(target, result)

    def _results(self, targets: Sequence[str]) -> dict[str, dict[str, Any]]:
        folder = self.folder / targets[0].replace(":", "-")
        bundles = {target: str(folder / target.rpartition(":")[2]) for target in targets}
        try:
            return self._job("cells", folder, bundles=bundles, calibration=list(self.calibration))
        finally:
            for bundle in bundles.values():
                shutil.rmtree(bundle, ignore_errors=True)

    def _cell(self, target: str, result: dict[str, Any]) -> Cell:
        if outcome(target, result) == "refused":
            return Cell(self.name, target, "refused", result["refused"], commit=commit())
        decibels = {name: round(min(SAME, max(-SAME, value)), 1) for name, value in result["decibels"].items()}
        answers, seconds = result.get("answers", ""), round(result["seconds"], 1)
        return Cell(self.name, target, outcome(target, result), "", decibels, answers, seconds, commit())

    def _job(self, action: str, folder: Path, **payload: Any) -> dict[str, Any]:
        given = {
            "network": str(self.file),
            "spec": str(self.spec),
            "photos": list(self.photos),
            "answers": str(self.answers),
        }
        return run_job("support.cell", {"action": action, **given, **payload}, folder, LIMITS)


def outcome(target: str, result: dict[str, Any]) -> str:
    """Return what a job's result comes to."""
    if "refused" in result:
        return "refused"
    floor = FLOORS.get(target.rpartition(":")[2], WHOLE_NUMBERS)
    return "right" if min(result["decibels"].values()) >= floor else "wrong"


def python_path() -> str:
    """Return the $PYTHONPATH with which a process of its own finds this package."""
    return os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])


def commit() -> str:
    """Return the tree that is measured."""
    return subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()


def chosen(names: Sequence[str], wishes: str) -> list[str]:
    """Return the names that are one of the wishes, or start with one that is no name, in the wishes' order."""
    if not wishes:
        return list(names)
    matches = [
        [wish] if wish in names else [name for name in names if name.startswith(wish)] for wish in wishes.split(",")
    ]
    return list(dict.fromkeys(itertools.chain.from_iterable(matches)))


def pending(arguments: argparse.Namespace) -> Iterator[tuple[str, Network, list[str]]]:
    """Yield each network with the targets that are still to be measured."""
    known, networks = read(arguments.results), catalogue.networks()
    for name in chosen(list(networks), arguments.networks):
        again = arguments.again.split(",")
        left = [
            target
            for target in chosen(targets(), arguments.targets)
            if (name, target) not in known or known[name, target].outcome in again or "all" in again
        ]
        if left:
            yield name, networks[name], left


def main() -> None:
    """Measure, and add a line a cell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("results", type=Path)
    for option in ("networks", "targets", "again"):
        parser.add_argument(f"--{option}", default="")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("plimsoll").setLevel(logging.WARNING)
    os.environ["PYTHONPATH"] = python_path()
    for name, network, left in list(pending(arguments)):
        try:
            measurement = Measurement(name, network, arguments.results.parent / "networks" / name, *photographs())
        except PlimsollError as error:
            log.warning("%s: %s", name, error.message)
            continue
        for _, same in itertools.groupby(left, lambda target: target.partition(":")[0]):
            for cell in measurement.cells(list(same)):
                with arguments.results.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(asdict(cell), ensure_ascii=False) + "\n")
                figure = f"{cell.worst:.1f} dB" if cell.decibels else cell.reason[:200]
                log.info("%-20s %-24s %-8s %s", name, cell.target, cell.outcome, figure)


if __name__ == "__main__":
    main()
