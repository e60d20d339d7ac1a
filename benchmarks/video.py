"""Clips against the loop that everybody writes first, trackers against ByteTrack, and memory over an hour of frames.

    python benchmarks/video.py speed MODEL CLIP [--spec SPEC] [--target T] [--preprocessing P]
    python benchmarks/video.py tracks BOXES.jsonl [--peer PYTHON]
    python benchmarks/video.py crossings --peer PYTHON
    python benchmarks/video.py cuts CLIP
    python benchmarks/video.py memory [--minutes 60]

`speed` is for NanoDet (416 x 416, raw outputs): the plain loop decodes with `cv2.VideoCapture`, prepares with OpenCV
and NumPy, runs ONNX Runtime with its defaults and suppresses with `cv2.dnn.NMSBoxes`. A clip of another size is
encoded at 1080p first. Each side runs in a process of its own, in turns. BOXES.jsonl is what `plimsoll predict MODEL
CLIP --threshold 0.1` writes; the peer is the interpreter of an environment with `trackers==2.6.1`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from plimsoll.inference.predictor import load
from plimsoll.inference.video import Clip, predict_clip
from plimsoll.inference.video.tracking import LOW, TrackedBox, Tracker
from plimsoll.system import host
from plimsoll.tasks.detect import Box, Detection

MEAN, STD = np.array([103.53, 116.28, 123.675], np.float32), np.array([57.375, 57.12, 58.395], np.float32)
SIDE, PAD, CONFIDENCE, IOU = 416, 114, 0.4, 0.5
ROUNDS = 3


def full_hd(clip: Path, folder: Path) -> Path:
    """Return the clip, or one of its frames at 1920 x 1080, in H.264."""
    import av

    with av.open(str(clip)) as source:
        stream = source.streams.video[0]
        if (stream.width, stream.height) == (1920, 1080):
            return clip
        target = folder / "1080p.mp4"
        with av.open(str(target), "w") as output:
            encoded = output.add_stream("libx264", rate=25, options={"crf": "21", "preset": "medium"})
            encoded.width, encoded.height, encoded.pix_fmt = 1920, 1080, "yuv420p"
            for number, frame in enumerate(source.decode(stream)):
                large = frame.reformat(1920, 1080, interpolation="BICUBIC")
                large.pts, large.time_base, large.pict_type = number, Fraction(1, 25), 0
                output.mux(encoded.encode(large))
            output.mux(encoded.encode())
    return target


def plain_loop(model: str, clip: str) -> int:
    """Answer every frame of a clip, one after another; return how many boxes there are."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import cv2
    import onnxruntime

    session = onnxruntime.InferenceSession(model)
    entry = session.get_inputs()[0].name
    capture, boxes = cv2.VideoCapture(clip), 0
    while True:
        read, frame = capture.read()
        if not read:
            return boxes
        height, width = frame.shape[:2]
        scale = min(SIDE / width, SIDE / height)
        across, down = round(width * scale), round(height * scale)
        resized = cv2.resize(frame, (across, down))
        left, top = (SIDE - across) // 2, (SIDE - down) // 2
        margins = top, SIDE - down - top, left, SIDE - across - left
        padded = cv2.copyMakeBorder(resized, *margins, cv2.BORDER_CONSTANT, value=(PAD, PAD, PAD))
        tensor = ((padded.astype(np.float32) - MEAN) / STD).transpose(2, 0, 1)[np.newaxis]
        boxes += plain_boxes(session.run(None, {entry: np.ascontiguousarray(tensor)}))


def plain_boxes(outputs: list[Any]) -> int:
    """Decode NanoDet's outputs and suppress; return how many boxes are left."""
    import cv2

    corners, scores = [], []
    for stride in (8, 16, 32):
        cells = SIDE // stride
        own = [output[0] for output in outputs if output.shape[1] == cells * cells]
        classes, distances = sorted(own, key=lambda values: -values.shape[1])
        bins = distances.reshape(-1, 4, 11)
        bins = np.exp(bins - bins.max(axis=2, keepdims=True))
        sides = (bins / bins.sum(axis=2, keepdims=True)) @ np.arange(11) * stride
        rows, columns = np.divmod(np.arange(cells * cells), cells)
        centre = np.stack([columns, rows], axis=1) * stride + (stride - 1) / 2
        corners.append(np.concatenate([centre - sides[:, :2], centre + sides[:, 2:]], axis=1))
        scores.append(classes)
    boxes, best = np.concatenate(corners), np.concatenate(scores)
    strong = best.max(axis=1) >= CONFIDENCE
    boxes, best = boxes[strong], best[strong]
    sizes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    labels = best.argmax(axis=1)
    return len(cv2.dnn.NMSBoxesBatched(sizes.tolist(), best.max(axis=1).tolist(), labels.tolist(), CONFIDENCE, IOU))


def ours(model: str, clip: str, options: argparse.Namespace) -> int:
    """Do the same with `predict_clip`."""
    host.keep_memory_level()
    with load(model, spec=options.spec, target=options.target, preprocessing=options.preprocessing) as predictor:
        answers = (answered.prediction.answer for answered in predict_clip(predictor, clip))
        return sum(len(answer.boxes) for answer in answers if isinstance(answer, Detection))


def side(arguments: list[str]) -> dict[str, Any]:
    """Run one side in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]))


def speed(options: argparse.Namespace) -> None:
    """Compare whole programs, in turns: from start to the last answer, and without the start."""
    with tempfile.TemporaryDirectory() as folder:
        clip = str(full_hd(Path(options.clip), Path(folder)))
        model = options.plain or options.model
        chosen = [
            *(["--spec", options.spec] if options.spec else []),
            *(["--target", options.target] if options.target else []),
            *(["--preprocessing", options.preprocessing] if options.preprocessing else []),
        ]
        runs: dict[str, list[dict[str, Any]]] = {"plain": [], "ours": []}
        for _ in range(options.rounds):
            runs["plain"].append(side(["side-plain", model, clip]))
            runs["ours"].append(side(["side-ours", options.model, clip, *chosen]))
    medians = {name: statistics.median(run["seconds"] for run in each) for name, each in runs.items()}
    for name, each in runs.items():
        rate = each[0]["frames"] / medians[name]
        processor = 1000 * statistics.median(run["processor"] for run in each) / each[0]["frames"]
        frames, boxes = each[0]["frames"], each[0]["boxes"]
        print(
            f"{name:6} {frames} frames, {boxes} boxes, {rate:.1f} frames/s, {medians[name]:.2f} s,"
            f" {processor:.0f} ms of processor time a frame"
        )
    print(f"ours is {medians['plain'] / medians['ours']:.2f} times as fast")


def timed(options: argparse.Namespace) -> None:
    """Print what one side took."""
    with Clip(options.clip) as clip:
        frames = sum(1 for _ in clip._frames())
    usage = resource.getrusage(resource.RUSAGE_SELF)
    before, started = usage.ru_utime + usage.ru_stime, time.perf_counter()
    plain = options.what == "side-plain"
    boxes = plain_loop(options.model, options.clip) if plain else ours(options.model, options.clip, options)
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = {"seconds": time.perf_counter() - started, "processor": used.ru_utime + used.ru_stime - before}
    print(json.dumps({**seconds, "boxes": boxes, "frames": frames}))


PEER = """
import json, sys, time
import numpy as np, supervision as sv
from trackers import ByteTrackTracker
high, rate = float(sys.argv[1]), float(sys.argv[2])
tracker = ByteTrackTracker(lost_track_buffer=round(1.5 * rate), frame_rate=rate, track_activation_threshold=high,
                           high_conf_det_threshold=high, minimum_consecutive_frames=2)
out, places, spent = [], [], 0.0
for line in sys.stdin:
    rows = json.loads(line)
    boxes = np.array([row[:4] for row in rows], float).reshape(-1, 4)
    scores = np.array([row[4] for row in rows], float)
    detections = sv.Detections(xyxy=boxes, confidence=scores, class_id=np.zeros(len(rows), int))
    started = time.perf_counter()
    tracked = tracker.update(detections)
    spent += time.perf_counter() - started
    known = tracked.tracker_id >= 0
    out.append(tracked.tracker_id[known].tolist())
    places.append(tracked.xyxy[known].tolist())
print(json.dumps({"ids": out, "boxes": places, "seconds": spent}))
"""


JUDGE = """
import json, sys
import numpy as np
from trackers.eval import compute_clear_metrics, compute_hota_metrics, compute_identity_metrics
def iou(first, second):
    a, b = np.array(first, float).reshape(-1, 1, 4), np.array(second, float).reshape(1, -1, 4)
    shared = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0).prod(-1)
    area = lambda boxes: (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    return shared / (area(a) + area(b) - shared)
truth, tracks = json.load(sys.stdin)
numbers = [[np.array([int(key) for key in frame], int) for frame in each] for each in (truth, tracks)]
same = [iou([*a.values()], [*b.values()]) for a, b in zip(truth, tracks)]
print(json.dumps({"HOTA": float(compute_hota_metrics(*numbers, same)["HOTA"]),
                  "IDF1": float(compute_identity_metrics(*numbers, same)["IDF1"]),
                  "switches": int(compute_clear_metrics(*numbers, same)["IDSW"])}))
"""


def crossings(options: argparse.Namespace) -> None:
    """Judge both trackers on people who cross, whose truth is known, with the metrics of `trackers`."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from helpers import crossings as drawn

    truth = drawn.crossing()
    for seed in range(5):
        seen, tracker = drawn.detections(truth, seed), Tracker(drawn.CONFIDENCE)
        ours_: list[dict[int, Any]] = []
        for index, frame in enumerate(seen):
            answer = tracker.update(frame, index / drawn.RATE)
            ours_.append({number: box.box for box in answer.boxes if (number := number_of(box)) is not None})
        lines = "\n".join(json.dumps([[*box.box, box.score] for box in frame.boxes]) for frame in seen)
        done = answer_of(options.peer, PEER, lines, str(drawn.CONFIDENCE), str(drawn.RATE))
        theirs = [dict(zip(*frame, strict=True)) for frame in zip(done["ids"], done["boxes"], strict=True)]
        for name, each in (("ours", ours_), ("trackers", theirs)):
            print(f"seed {seed}, {name}: {answer_of(options.peer, JUDGE, json.dumps([truth, each], default=float))}")


def answer_of(python: str, program: str, text: str, *arguments: str) -> Any:
    """Run a program in another environment, and return what it prints."""
    command = [python, "-c", program, *arguments]
    return json.loads(subprocess.run(command, input=text, check=True, capture_output=True, text=True).stdout)


def number_of(box: Box) -> int | None:
    """Return the number of a box's track."""
    return box.track if isinstance(box, TrackedBox) else None


def lengths(ids: list[list[int]]) -> list[int]:
    """Return how many frames each track has, longest first."""
    counts: dict[int, int] = {}
    for frame in ids:
        for number in frame:
            counts[number] = counts.get(number, 0) + 1
    return sorted(counts.values(), reverse=True)


def tracks(options: argparse.Namespace) -> None:
    """Compare tracks on one list of boxes, at equal thresholds: how many, how long, how dear."""
    rows = [row for row in map(json.loads, Path(options.boxes).read_text().splitlines()) if row["boxes"] is not None]
    people = [
        [box for box in row["boxes"] if box["label"] == options.label and box["score"] >= LOW * CONFIDENCE]
        for row in rows
    ]
    tracker, spent, ids = Tracker(CONFIDENCE), 0.0, []
    for row, boxes in zip(rows, people, strict=True):
        detection = Detection(tuple(Box(box["label"], box["score"], tuple(box["box"])) for box in boxes))
        started = time.perf_counter()
        answer = tracker.update(detection, row["time"])
        spent += time.perf_counter() - started
        ids.append([number for box in answer.boxes if (number := number_of(box)) is not None])
    report("ours", ids, spent)
    if options.peer:
        lines = "\n".join(json.dumps([[*box["box"], box["score"]] for box in boxes]) for boxes in people)
        rate = (len(rows) - 1) / (rows[-1]["time"] - rows[0]["time"])
        done = answer_of(options.peer, PEER, lines, str(CONFIDENCE), str(rate))
        report("trackers", done["ids"], done["seconds"])


def report(name: str, ids: list[list[int]], seconds: float) -> None:
    """Print what became of the boxes."""
    each = lengths(ids)
    stable = [length for length in each if length >= 25]
    print(
        f"{name:9} {len(each)} tracks, {len(stable)} of 25 frames and more, which hold {sum(stable)} of {sum(each)}"
        f" boxes; longest {each[:5]}; {1000 * seconds / len(ids):.2f} ms a frame"
    )


def cuts(options: argparse.Namespace) -> None:
    """Print where scenes begin."""
    started = time.perf_counter()
    with Clip(options.clip, "scenes") as clip:
        numbers = [frame.number for frame in clip]
    print(f"scenes begin at {numbers}, {time.perf_counter() - started:.2f} s")


def memory(options: argparse.Namespace) -> None:
    """Answer an hour of frames at 25 a second, and print the memory in use as it goes on."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from helpers.clips import numbered, write
    from helpers.detection_networks import model
    from plimsoll.core.target import REFERENCE_TARGET
    from plimsoll.inference.predictor import Predictor, ResolvedModel

    host.keep_memory_level()
    steps: list[dict[str, Any]] = [
        {"step": "decode"},
        {"step": "resize", "fit": "letterbox", "width": 128, "height": 128},
    ]
    with tempfile.TemporaryDirectory() as folder:
        minute = write(Path(folder) / "minute.mp4", (numbered(number % 1000) for number in range(1500)))
        joined = Path(folder) / "hour.mp4"
        repeat(minute, joined, options.minutes)
        resolved = ResolvedModel(model(Path(folder), "yolov8", steps), REFERENCE_TARGET)
        with Predictor(resolved) as predictor:
            started = time.perf_counter()
            for number, _ in enumerate(predict_clip(predictor, str(joined)), 1):
                if number % (1500 * max(options.minutes // 6, 1)) == 0 or number == 1500:
                    used = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
                    print(f"{number:7,} frames, {used:.0f} MB, {number / (time.perf_counter() - started):.0f} frames/s")


def repeat(clip: Path, target: Path, times: int) -> None:
    """Write a clip several times one after another, without encoding it again."""
    import av

    with av.open(str(target), "w") as output:
        stream, offset = None, 0
        for _ in range(times):
            with av.open(str(clip)) as source:
                original = source.streams.video[0]
                stream = stream or output.add_stream_from_template(original)
                last = 0
                for packet in source.demux(original):
                    if packet.dts is None or packet.pts is None:
                        continue
                    last = max(last, packet.pts + (packet.duration or 0))
                    packet.pts, packet.dts, packet.stream = packet.pts + offset, packet.dts + offset, stream
                    output.mux(packet)
                offset += last


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="what", required=True)
    for name in ("speed", "side-plain", "side-ours"):
        each = commands.add_parser(name)
        each.add_argument("model")
        each.add_argument("clip")
        each.add_argument("--spec")
        each.add_argument("--target")
        each.add_argument("--preprocessing")
        each.add_argument("--plain", help="the ONNX file of the plain loop, where MODEL is a bundle")
        each.add_argument("--rounds", type=int, default=ROUNDS)
    tracked = commands.add_parser("tracks")
    tracked.add_argument("boxes")
    tracked.add_argument("--label", default="person")
    tracked.add_argument("--peer")
    commands.add_parser("crossings").add_argument("--peer", required=True)
    commands.add_parser("cuts").add_argument("clip")
    commands.add_parser("memory").add_argument("--minutes", type=int, default=60)
    options = parser.parse_args()
    steps = {
        **{"speed": speed, "side-plain": timed, "side-ours": timed, "tracks": tracks},
        **{"crossings": crossings, "cuts": cuts, "memory": memory},
    }
    steps[options.what](options)


if __name__ == "__main__":
    main()
