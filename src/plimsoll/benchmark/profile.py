"""What a deployment costs: where a picture's time goes, and what would remain if the rest cost nothing; bytes on disk,
time to load and peak memory, measured in a process of its own."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.benchmark.measure import SystemUnderTest
from plimsoll.core.model import ModelRecord
from plimsoll.core.target import Target
from plimsoll.errors import ImageError, InputError
from plimsoll.inference.cascade import CascadePredictor
from plimsoll.inference.cascade_spec import CascadeSpec
from plimsoll.inference.pictures import loaded_source, source
from plimsoll.inference.predictor import Picture, Predictor, ResolvedModel
from plimsoll.preprocessing import Preprocessor
from plimsoll.preprocessing.decode import Pixels, as_array
from plimsoll.preprocessing.pillow_file import translate_errors
from plimsoll.system import host, subprocesses


@dataclass(frozen=True)
class Stage:
    """One stage between a picture's file and its answer."""

    name: str
    """`read`, the preprocessing steps by name, `inference`, `output`."""
    seconds: float
    """Mean wall time a picture, alone on the machine, in one thread (inference: with the threads of one call)."""
    share: float
    """Of all stages together."""


@dataclass(frozen=True)
class Profile:
    """The stages of one system, and the rates that they allow on all cores."""

    name: str
    pictures: int
    stages: tuple[Stage, ...]
    queue: float
    """Seconds a picture waits for a core, for the others in its batch or for its turn, when all cores are busy. It is
    no work, so it has no share."""
    rate: float
    """Pictures a second, end to end on all cores."""
    infinite_network_rate: float
    """Pictures a second on all cores if the network took no time: reading and preprocessing alone."""
    infinite_preprocessing_rate: float
    """Pictures a second on all cores if only the network took time."""


def profile(system: SystemUnderTest, images: Sequence[Picture], *, min_seconds: float = 2.0) -> Profile:
    """Measure the stages one picture after another, then front end, network and the whole on all cores, `min_seconds`
    each.

    Pictures that can't be read are left out; raises InputError where none can, RunError where the runtime fails.
    """
    predictor = system.predictor
    if isinstance(predictor, CascadePredictor):
        return _cascade_profile(system.name, predictor, images, min_seconds)
    usable, tensors = _usable(predictor, images)
    if not usable:
        raise InputError(f"{system.name}: none of the {len(images):,} pictures can be read")
    stages, pictures = _stages(predictor, usable, min_seconds)
    front = _rate(
        predictor.cores, lambda index: predictor.preprocessor(source(usable[index % len(usable)])), min_seconds
    )
    runner = predictor.runner("throughput")
    network = _rate(runner.streams, lambda index: runner.infer(tensors[index % len(tensors)]), min_seconds)
    rate, queue = _end_to_end(predictor, usable, min_seconds)
    return Profile(system.name, pictures, stages, queue, rate, front, network)


def _cascade_profile(name: str, predictor: CascadePredictor, images: Sequence[Picture], min_seconds: float) -> Profile:
    """Measure the stages of a cascade: what its networks' own stages leave is decoding, cutting out and placing."""
    spent: dict[str, float] = {"decode and cut": 0.0}
    count = 0

    def watch(index: int, _: object, seconds: dict[str, float]) -> None:
        for stage, own in seconds.items():
            key = f"{predictor.networks[index].spec.name} {stage}"
            spent[key] = spent.get(key, 0.0) + own

    predictor.predict(images[0])  # The first call loads.
    end = time.perf_counter() + min_seconds
    while time.perf_counter() < end or not count:
        started = time.perf_counter()
        before = sum(spent.values())
        predictor.stages.answer(images[count % len(images)], None, None, watch)
        spent["decode and cut"] += time.perf_counter() - started - (sum(spent.values()) - before)
        count += 1
    total = sum(spent.values())
    inference = sum(seconds for stage, seconds in spent.items() if stage.endswith(" inference"))
    stages = tuple(Stage(stage, seconds / count, seconds / total) for stage, seconds in spent.items())
    started, answered = time.perf_counter(), 0
    for _ in predictor.predict_many(_until(started + min_seconds, images)):
        answered += 1
    rate = answered / (time.perf_counter() - started)
    share = inference / total
    front, network = rate / max(1 - share, 1e-9), rate / max(share, 1e-9)
    return Profile(name, count, stages, 0.0, rate, front, network)


def _usable(
    predictor: Predictor, images: Sequence[Picture], tensor_count: int = 16
) -> tuple[list[Picture], list[NDArray[np.generic]]]:
    """Return the pictures that can be read, and the first of their tensors, with a batch axis."""
    usable, tensors = list[Picture](), list[NDArray[np.generic]]()
    for picture in images:
        try:
            tensor = predictor.preprocessor(source(picture))
        except ImageError:
            continue
        usable.append(picture)
        if len(tensors) < tensor_count:
            tensors.append(tensor[np.newaxis])
    return usable, tensors


def _stages(predictor: Predictor, pictures: Sequence[Picture], min_seconds: float) -> tuple[tuple[Stage, ...], int]:
    """Run one picture after another, in full rounds over all of them unless the time is over, and return the means."""
    runner = predictor.runner("throughput")
    runner.infer(predictor.preprocessor(source(pictures[0]))[np.newaxis])  # The first call allocates.
    spent: dict[str, float] = defaultdict(float)
    count = 0
    end = time.perf_counter() + min_seconds
    while time.perf_counter() < end or not count:
        tensor = _timed_steps(predictor.preprocessor, pictures[count % len(pictures)], spent)
        started = time.perf_counter()
        outputs = runner.infer(tensor[np.newaxis])
        computed = time.perf_counter()
        predictor.task.decode(outputs)
        spent["inference"] += computed - started
        spent["output"] += time.perf_counter() - computed
        count += 1
    total = sum(spent.values())
    return tuple(Stage(name, seconds / count, seconds / total) for name, seconds in spent.items()), count


def _timed_steps(preprocessor: Preprocessor, picture: Picture, spent: dict[str, float]) -> NDArray[np.generic]:
    """Do what `Preprocessor` does and time each step; a step that comes twice is counted as `name 2`."""
    marks = [("", time.perf_counter())]
    given = loaded_source(picture)
    assert isinstance(given, bytes)  # noqa: S101 - what is profiled are files
    pixels: Pixels | bytes = given
    marks.append(("read", time.perf_counter()))
    with translate_errors():
        for name, stage in preprocessor.stages:
            pixels = stage(pixels)
            marks.append((name, time.perf_counter()))
    assert not isinstance(pixels, bytes)  # noqa: S101 - there is at least a decoder
    tensor = np.ascontiguousarray(as_array(pixels))
    # Making it contiguous belongs to the step that left it strided.
    marks[-1] = (marks[-1][0], time.perf_counter())
    occurrences: dict[str, int] = defaultdict(int)
    for (_, before), (name, after) in itertools.pairwise(marks):
        occurrences[name] += 1
        spent[name if occurrences[name] == 1 else f"{name} {occurrences[name]}"] += after - before
    return tensor


def _rate(threads: int, work: Callable[[int], object], min_seconds: float) -> float:
    """Return how many calls a second `threads` threads complete; each counts its own full calls over its own time."""
    rates: list[float] = []
    crashes: list[BaseException] = []
    barrier = threading.Barrier(threads)

    def run(first: int) -> None:
        try:
            work(first)
            barrier.wait()
            started, count = time.perf_counter(), 0
            while (spent := time.perf_counter() - started) < min_seconds or not count:
                work(first + count * threads)
                count += 1
            rates.append(count / spent)
        except BaseException as error:  # noqa: BLE001 - an unforeseen error is raised again in the caller's thread
            barrier.abort()
            crashes.append(error)

    workers = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if crashes:
        raise next((error for error in crashes if not isinstance(error, threading.BrokenBarrierError)), crashes[0])
    return sum(rates)


def _end_to_end(predictor: Predictor, pictures: Sequence[Picture], min_seconds: float) -> tuple[float, float]:
    """Return pictures a second end to end, and the seconds that a picture waits."""
    spent: dict[str, float] = defaultdict(float)
    lock = threading.Lock()

    def observe(stage: str, seconds: float) -> None:
        with lock:
            spent[stage] += seconds

    runner = predictor.runner("throughput")
    before = runner.timing.seconds
    started, count = time.perf_counter(), 0
    for _ in predictor.predict_many(_until(started + min_seconds, pictures), observe=observe):
        count += 1
    seconds = time.perf_counter() - started
    # What a call takes beyond its time in the runtime is waiting for its turn.
    turns = max(0.0, spent["inference"] - (runner.timing.seconds - before))
    return count / seconds, (spent["queue"] + turns) / count


def _until(end: float, pictures: Sequence[Picture]) -> Iterator[Picture]:
    """Yield the pictures again and again, at least one, until the moment `end`."""
    for picture in itertools.cycle(pictures):
        yield picture
        if time.perf_counter() >= end:
            return


TIMEOUT_S = 120.0
PICTURES = 64
"""How many pictures the process answers: more than are in progress at once on a small machine, so that the peak is
reached."""


@dataclass(frozen=True)
class Footprint:
    """What one system costs beside its time to answer."""

    disk_bytes: int
    """The network's files."""
    load_seconds: float
    """Importing the runtime, building and loading the network, in a fresh process."""
    peak_bytes: float
    """The largest resident memory while it loads and answers pictures; NaN where the operating system doesn't say."""
    streams: int
    """How many calls of the runtime run at once when it answers many pictures."""
    threads: int
    """With how many threads each of them computes."""


def footprint(system: SystemUnderTest, images: Sequence[Path], timeout_s: float = TIMEOUT_S) -> Footprint:
    """Load the system in a new process and answer 64 pictures there; raises JobError with the reason if that fails."""
    predictor = system.predictor
    payload = {
        "networks": [
            {
                "model": ModelRecord.of(network.model).model_dump(mode="json"),
                "target": str(network.target),
                "steps": (network.preprocessor.preprocessing, network.preprocessor.scaled_sides),
            }
            for network in predictor.networks
        ],
        "cascade": predictor.stages.spec.model_dump(mode="json") if isinstance(predictor, CascadePredictor) else None,
        "options": predictor.options,
        "cores": predictor.cores,
        "images": [str(images[index % len(images)].resolve()) for index in range(PICTURES)],
    }
    with TemporaryDirectory(prefix="plimsoll-footprint-") as folder:
        result = subprocesses.run_job(__name__, payload, Path(folder), subprocesses.ProcessLimits(timeout_s))
    peak = math.nan if result["peak_bytes"] is None else float(result["peak_bytes"])
    plan = predictor.threads("throughput")
    return Footprint(predictor.size, result["load_seconds"], peak, plan.streams, plan.threads)


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Load the model and answer the pictures of the payload; return `{"load_seconds": …, "peak_bytes": …}` of this
    process."""
    opened = []
    for network in payload["networks"]:
        model = ModelRecord.model_validate(network["model"]).model
        opened.append(ResolvedModel(model, Target.parse(network["target"]), *network["steps"]))
    cascade, cores = payload["cascade"], payload["cores"]
    with (
        Predictor(opened[0], options=payload["options"], cores=cores)
        if cascade is None
        else CascadePredictor(CascadeSpec.model_validate(cascade), opened, cores=cores)
    ) as predictor:
        started = time.perf_counter()
        predictor.runner("throughput")
        load = time.perf_counter() - started
        for _ in predictor.predict_many(payload["images"]):
            pass
    return {"load_seconds": load, "peak_bytes": host.peak_bytes()}
