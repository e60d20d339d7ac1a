"""Train a small network for each point of a face, on cuts of 28 x 28 pixels, and put them behind a cascade.

    python benchmarks/point_networks.py train CASCADE OUT --labels training.xml [--pictures FOLDER]
    python benchmarks/point_networks.py judge CASCADE … --labels testing.xml

`train` needs PyTorch (`pip install torch`), and both need OpenCV (the extra `fast`). CASCADE gives 68 points; its
answers are where the cuts lie. LABELS are faces with their points in dlib's XML (`examples/faces` of its repository),
with pictures beside it. Faces of PICTURES have no labels: their teacher is CASCADE itself, as the median of its answers
to the face turned, scaled and mirrored. OUT gets `point-00.onnx` …, `point.toml` (their Spec) and `cascade.toml`.

`judge` prints the mean distance from labelled points, as a share of the distance between the eyes' outer corners.
"""

from __future__ import annotations

import argparse
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from plimsoll import load
from plimsoll.inference.cascade import CascadePredictor
from plimsoll.inference.cascade_spec import CascadeSpec, Crop, Stage, read_cascade, write_cascade
from plimsoll.inference.crops import Square
from plimsoll.inference.predictor import cascade_file

POINTS, SIDE, EYES = 68, 28, (36, 45)
CHANNELS = (8, 16, 24)
TURNS = 12
"""Views of a face from which its teacher's answer is taken."""
STEPS, BATCH, RATE = 700, 24, 2e-3
SHARE = 0.35
"""A cut's side, in the longer sides of the box around all points."""
SPEC = f"""name = "point"
description = "A point of a face in a cut of {SIDE} x {SIDE} pixels."

[[input.steps]]
step = "decode"

[[input.steps]]
step = "resize"
width = {SIDE}
height = {SIDE}
convention = "opencv"

[[input.steps]]
step = "std"
values = [255.0]

[[input.steps]]
step = "layout"
order = "NCHW"

[output]
task = "landmarks"
points = 1
normalized = true
"""

Array = NDArray[Any]


@dataclass(frozen=True)
class Face:
    """A face whose points are known, with where the first level puts them."""

    pixels: Array
    """The picture, RGB."""
    points: Array
    """`[68, 2]` in its pixels."""
    first: Array
    """`[views, 68, 2]`."""


def mirrored() -> Array:
    """Return which point each of iBUG's 68 becomes in a mirror."""
    runs = [(0, 16), (17, 26), (31, 35), (48, 54), (55, 59), (60, 64), (65, 67)]
    other = np.arange(POINTS)
    for start, end in runs:
        other[start : end + 1] = np.arange(end, start - 1, -1)
    for left, right in zip((36, 37, 38, 39, 40, 41), (45, 44, 43, 42, 47, 46), strict=True):
        other[left], other[right] = right, left
    return other


def labelled(file: Path) -> Iterator[tuple[Path, Array]]:
    """Yield each face of dlib's XML: its picture, and its points `[68, 2]` from the picture's outer corner."""
    for image in ET.parse(file).getroot().iter("image"):
        for box in image.iter("box"):
            parts = sorted(box.iter("part"), key=lambda part: int(part.get("name", "0")))
            points = [[float(part.get("x", "nan")) + 0.5, float(part.get("y", "nan")) + 0.5] for part in parts]
            if len(points) == POINTS:
                yield file.parent / image.get("file", ""), np.array(points)


def answers(cascade: CascadePredictor, pixels: Array) -> list[Array]:
    """Return the points `[68, 2]` of each face in a picture (RGB)."""
    return [np.array(box.points)[:, :2] for box in cascade.predict(np.ascontiguousarray(pixels), colour="RGB").boxes]


def nearest(faces: Sequence[Array], centre: Array, reach: float) -> Array | None:
    """Return the face whose centre lies nearest to a place, if one is within reach."""
    within = [(float(np.linalg.norm(face.mean(axis=0) - centre)), index) for index, face in enumerate(faces)]
    return faces[min(within)[1]] if within and min(within)[0] < reach else None


def views(cascade: CascadePredictor, pixels: Array, around: Array, random: np.random.Generator) -> Array:
    """Return a cascade's answers `[views, 68, 2]` to a face at `around`, turned, scaled and mirrored."""
    centre, size, other = around.mean(axis=0), float(np.ptp(around, axis=0).max()), mirrored()
    placed = []
    for turn in range(TURNS):
        angle, scale = random.uniform(-12, 12), 200 / size * random.uniform(0.85, 1.2)
        way = cv2.getRotationMatrix2D((float(centre[0]), float(centre[1])), angle, scale)
        way[:, 2] += 300 - centre
        if turn % 2:
            way[0] = -way[0]
            way[0, 2] += 600
        there = centre @ way[:, :2].T + way[:, 2]
        face = nearest(answers(cascade, cv2.warpAffine(pixels, way, (600, 600))), there, 80)
        if face is not None:
            back = (face - way[:, 2]) @ np.linalg.inv(way[:, :2]).T
            placed.append(back[other] if turn % 2 else back)
    return np.array(placed)


def read(file: Path) -> Array:
    """Return a picture, RGB."""
    pixels = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if pixels is None:
        raise SystemExit(f"{file} can't be read")
    return np.ascontiguousarray(pixels[..., ::-1])


def gather(cascade: CascadePredictor, options: argparse.Namespace, random: np.random.Generator) -> list[Face]:
    """Return the faces to train on."""
    faces = []
    for file, points in (face for xml in options.labels for face in labelled(xml)):
        pixels = read(file)
        first = views(cascade, pixels, points, random)
        if len(first):
            faces.append(Face(pixels, points, first))
    own = len(faces)
    for file in sorted(options.pictures.iterdir()) if options.pictures else []:
        if cv2.haveImageReader(str(file)):
            pixels = read(file)
            for around in answers(cascade, pixels)[:4]:
                first = views(cascade, pixels, around, random)
                if len(first) >= TURNS // 2:
                    faces.append(Face(pixels, np.median(first, axis=0), first))
    print(f"{own} labelled faces, {len(faces) - own} whose teacher is the cascade")
    return faces


def cut(face: Face, random: np.random.Generator) -> tuple[Array, Array]:
    """Return a face's cuts `[68, 28, 28, 3]`, and where in each its point lies `[68, 2]`, as shares of the side."""
    first = face.first[random.integers(len(face.first))]
    centre, size = first.mean(axis=0), float(np.ptp(first, axis=0).max())
    angle, scale = random.normal(0, 0.05), 1 + random.normal(0, 0.04)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    first = (
        (first - centre) @ turn.T + centre + random.normal(0, 0.012, 2) * size + random.normal(0, 0.008, (68, 2)) * size
    )
    side = SHARE * float(np.ptp(first, axis=0).max())
    across = first[EYES[1]] - first[EYES[0]]
    upright = float(np.arctan2(across[1], across[0]))
    squares = [Square(x, y, side, upright) for x, y in first]
    cuts = np.stack([square.cut_fast(face.pixels, SIDE, SIDE) for square in squares])
    cosine, sine = np.cos(upright), np.sin(upright)
    moved = (face.points - first) @ np.array([[cosine, -sine], [sine, cosine]]) / side + 0.5
    flip = random.random() < 0.5
    if flip:
        other = mirrored()
        cuts, moved = cuts[other][:, :, ::-1], moved[other] * (-1, 1) + (1, 0)
    light = np.float32(random.uniform(0.7, 1.3)), np.float32(random.uniform(-0.1, 0.1))
    return np.clip(cuts.astype(np.float32) / 255 * light[0] + light[1], 0, 1), moved.astype(np.float32)


def fit(faces: Sequence[Face], random: np.random.Generator) -> list[tuple[Array, Array]]:
    """Train all networks side by side; return the weights and biases of their layers, `[68 x outputs, …]` each."""
    import torch

    torch.manual_seed(0)
    first, second, third = CHANNELS
    layers = (
        torch.nn.Conv2d(3 * POINTS, first * POINTS, 3, 2, 1, groups=POINTS),
        torch.nn.Conv2d(first * POINTS, second * POINTS, 3, 2, 1, groups=POINTS),
        torch.nn.Conv2d(second * POINTS, third * POINTS, 3, 2, 1, groups=POINTS),
        torch.nn.Conv2d(third * POINTS, 2 * POINTS, 4, groups=POINTS),
    )
    with torch.no_grad():
        layers[3].weight.mul_(0.1)
        layers[3].bias.fill_(0.5)
    network = torch.nn.Sequential(
        layers[0],
        torch.nn.ReLU(),
        layers[1],
        torch.nn.ReLU(),
        layers[2],
        torch.nn.ReLU(),
        torch.nn.Dropout2d(0.1),
        layers[3],
    )
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    network.train()
    started = time.perf_counter()
    for step in range(STEPS):
        chosen = [cut(faces[index], random) for index in random.integers(len(faces), size=BATCH)]
        cuts = (
            torch.from_numpy(np.stack([each for each, _ in chosen]))
            .permute(0, 1, 4, 2, 3)
            .reshape(BATCH, -1, SIDE, SIDE)
        )
        places = torch.from_numpy(np.stack([each for _, each in chosen]))
        given = network(cuts.reshape(BATCH, -1, SIDE, SIDE)).reshape(BATCH, POINTS, 2)
        loss = torch.nn.functional.smooth_l1_loss(given, places, beta=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == STEPS - 1:
            error = float((given.detach() - places).norm(dim=2).mean()) * SHARE
            before = float((places - 0.5).norm(dim=2).mean()) * SHARE
            print(f"step {step}: {before:.4f} -> {error:.4f} of the face's size, {time.perf_counter() - started:.0f} s")
    return [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in layers]


def network_of(layers: Sequence[tuple[Array, Array]], point: int) -> onnx.ModelProto:
    """Return a point's network: `[N, 3, 28, 28]` in, `[N, 2]` out."""
    nodes, constants, entry = [], [], "image"
    for index, (weights, biases) in enumerate(layers):
        count, last = len(biases) // POINTS, index == len(layers) - 1
        own = slice(point * count, (point + 1) * count)
        constants += [
            onnx.numpy_helper.from_array(values[own], f"{kind}{index}")
            for kind, values in (("weights", weights), ("biases", biases))
        ]
        window = {} if last else {"strides": [2, 2], "pads": [1, 1, 1, 1]}
        nodes.append(helper.make_node("Conv", [entry, f"weights{index}", f"biases{index}"], [f"sum{index}"], **window))
        entry = f"sum{index}"
        if not last:
            nodes.append(helper.make_node("Relu", [entry], [f"layer{index}"]))
            entry = f"layer{index}"
    nodes.append(helper.make_node("Flatten", [entry], ["point"]))
    graph = helper.make_graph(
        nodes,
        f"point-{point:02}",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("point", TensorProto.FLOAT, ["N", 2])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def behind(cascade: CascadeSpec) -> CascadeSpec:
    """Return a cascade with a stage for each point behind its own."""
    crop = Crop(scale=SHARE, upright=EYES)
    stages = [
        Stage(model=f"point-{point:02}.onnx", spec="point.toml", crop=crop, points=(point,)) for point in range(POINTS)
    ]
    return cascade.model_copy(update={"name": f"{cascade.name}_points", "stages": (*cascade.stages, *stages)})


def train(options: argparse.Namespace) -> None:
    """Train, and write the networks and the cascade."""
    random = np.random.default_rng(0)
    with load(options.cascade) as cascade:
        assert isinstance(cascade, CascadePredictor)
        faces = gather(cascade, options, random)
    layers = fit(faces, random)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "point.toml").write_text(SPEC, encoding="utf-8")
    for point in range(POINTS):
        onnx.save(network_of(layers, point), options.out / f"point-{point:02}.onnx")
    file = cascade_file(options.cascade)
    assert file is not None
    (options.out / "cascade.toml").write_text(write_cascade(behind(read_cascade(file))), encoding="utf-8")


def judge(options: argparse.Namespace) -> None:
    """Print how far each cascade's points are from the labels."""
    faces = [face for xml in options.labels for face in labelled(xml)]
    for name in options.cascade:
        with load(name) as cascade:
            assert isinstance(cascade, CascadePredictor)
            errors, seconds = [], 0.0
            for file, points in faces:
                started = time.perf_counter()
                placed = answers(cascade, read(file))
                seconds += time.perf_counter() - started
                face = nearest(placed, points.mean(axis=0), 0.4 * float(np.ptp(points, axis=0).max()))
                if face is not None:
                    across = np.linalg.norm(points[EYES[0]] - points[EYES[1]])
                    errors.append(float(np.linalg.norm(face - points, axis=1).mean() / across))
        mean, median, most = np.mean(errors), np.median(errors), max(errors)
        print(
            f"{name}: {len(errors)} of {len(faces)} faces; NME {mean:.4f} in the mean, {median:.4f} in the median,"
            f" {most:.4f} at most; {1000 * seconds / len(faces):.0f} ms a picture"
        )


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    training = commands.add_parser("train")
    training.add_argument("cascade")
    training.add_argument("out", type=Path)
    training.add_argument("--labels", type=Path, nargs="*", default=[])
    training.add_argument("--pictures", type=Path)
    judging = commands.add_parser("judge")
    judging.add_argument("cascade", nargs="+")
    judging.add_argument("--labels", type=Path, nargs="+", required=True)
    options = parser.parse_args()
    {"train": train, "judge": judge}[options.what](options)


if __name__ == "__main__":
    main()
