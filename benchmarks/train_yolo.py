"""Train a YOLOv5n and a YOLOv8n-seg of the real architecture for some minutes, on drawn objects pasted on photographs.

    python benchmarks/train_yolo.py PHOTOS OUT

In an environment of its own with `torch`, `onnx`, `ultralytics` and `yolov5` (both AGPL-3.0: nothing of Plimsoll needs
them). OUT gets `images/` and `labels.json` (COCO, with polygons) of 160 pictures that trained nothing, `yolov5n.onnx`
`[1, 6300 x (size / 320)², 5 + labels]` and `yolov8n-seg.onnx` with their weights. `benchmarks/detectors.py` compares
Plimsoll with the authors' own predictors on them.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

LABELS = ("ball", "crate", "star")
SIZE, TRAINING, TEST = 128, 400, 160

Polygon = list[tuple[float, float]]


def _outline(label: int, random: np.random.Generator) -> Polygon:
    """Return the outline of an object around (0, 0), about 1 in size."""
    turn = random.uniform(0, 2 * math.pi)
    if label == 0:
        angles, radii = np.linspace(0, 2 * math.pi, 32, endpoint=False), np.full(32, 0.5)
    elif label == 1:
        angles, radii = np.array([0.6, math.pi - 0.6, math.pi + 0.6, -0.6]), np.full(4, 0.6)
    else:
        angles = np.linspace(0, 2 * math.pi, 10, endpoint=False)
        radii = np.where(np.arange(10) % 2 == 0, 0.6, 0.25)
    angles = angles + turn
    return list(zip((radii * np.cos(angles)).tolist(), (radii * np.sin(angles)).tolist(), strict=True))


def compose(photo: Image.Image, random: np.random.Generator) -> tuple[Image.Image, list[tuple[int, Polygon]]]:
    """Return a picture with one to six objects and what each is, with its outline in pixels."""
    width, height = int(random.integers(200, 420)), int(random.integers(200, 420))
    picture = photo.convert("RGB").resize((width, height))
    objects = []
    for _ in range(int(random.integers(1, 7))):
        label, side = int(random.integers(3)), float(random.uniform(0.12, 0.45)) * min(width, height)
        x, y = random.uniform(0.1, 0.9) * width, random.uniform(0.1, 0.9) * height
        outline = [(x + side * dx, y + side * dy) for dx, dy in _outline(label, random)]
        layer = Image.new("L", picture.size)
        ImageDraw.Draw(layer).polygon(outline, fill=255)
        first, second = (tuple(int(value) for value in random.integers(0, 256, 3)) for _ in range(2))
        shift, slope = random.uniform(0.05, 0.3), random.uniform(-1, 1)
        rows, columns = np.mgrid[:height, :width]
        stripes = np.sin(shift * (columns + slope * rows)) > 0
        texture = np.where(stripes[..., np.newaxis], first, second).astype(np.uint8)
        picture.paste(Image.fromarray(texture), mask=layer)
        inside = [(min(max(px, 0.0), width), min(max(py, 0.0), height)) for px, py in outline]
        objects.append((label, inside))
    return picture, objects


def write_pictures(photos: Path, out: Path) -> Path:
    """Write training and test pictures with YOLO polygons, and the test pictures' labels as COCO JSON; return the
    dataset's YAML."""
    backgrounds = sorted(path for path in photos.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    random = np.random.default_rng(14)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(TRAINING + TEST):
        part = "train" if index < TRAINING else "val"
        with Image.open(backgrounds[int(random.integers(len(backgrounds)))]) as photo:
            picture, objects = compose(photo, random)
        file = out / "data" / "images" / part / f"{index:04}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.save(file, quality=92)
        lines = [
            " ".join(
                [str(label), *(f"{value:.5f}" for x, y in line for value in (x / picture.width, y / picture.height))]
            )
            for label, line in objects
        ]
        text = out / "data" / "labels" / part / f"{index:04}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("\n".join(lines))
        if part == "val":
            images.append({"id": index, "file_name": file.name, "width": picture.width, "height": picture.height})
            annotations += [_annotation(len(annotations) + at, index, *each) for at, each in enumerate(objects)]
    categories = [{"id": label, "name": name} for label, name in enumerate(LABELS)]
    (out / "labels.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    shutil.copytree(out / "data" / "images" / "val", out / "images", dirs_exist_ok=True)
    yaml = out / "data" / "data.yaml"
    names = "".join(f"  {label}: {name}\n" for label, name in enumerate(LABELS))
    yaml.write_text(f"path: {out / 'data'}\ntrain: images/train\nval: images/val\nnames:\n{names}")
    return yaml


def _annotation(number: int, image: int, label: int, outline: Polygon) -> dict[str, Any]:
    x, y = np.array(outline).T
    box = [float(x.min()), float(y.min()), float(np.ptp(x)), float(np.ptp(y))]
    polygon = [float(value) for point in outline for value in point]
    area = float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)
    plain = {"id": number + 1, "image_id": image, "category_id": label, "iscrowd": 0}
    return {**plain, "bbox": box, "area": area, "segmentation": [polygon]}


def train_yolov5(out: Path, seconds: float) -> None:
    """Train with the author's loss, and export the head as his `export.py` does: in pixels, with objectness."""
    from yolov5.models.yolo import Model
    from yolov5.utils.loss import ComputeLoss

    configuration = Path(str(__import__("yolov5").__file__)).parent / "models" / "yolov5n.yaml"
    torch.manual_seed(0)
    model = Model(str(configuration), ch=3, nc=len(LABELS))
    # The author scales `cls` by labels / 80 and `obj` by (size / 640)²: unscaled, they drown the boxes' loss.
    model.hyp = {"cls_pw": 1.0, "obj_pw": 1.0, "fl_gamma": 0.0, "box": 0.05, "obj": 0.1, "cls": 0.05, "anchor_t": 4.0}
    loss = ComputeLoss(model)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=5e-4)
    samples = [_sample(file) for file in sorted((out / "data" / "images" / "train").iterdir())]
    random = np.random.default_rng(0)
    started, step = time.process_time(), 0
    while (share := (time.process_time() - started) / seconds) < 1:
        chosen = random.choice(len(samples), 16, replace=False)
        pictures = torch.stack([samples[at][0] for at in chosen])
        targets = torch.cat(
            [torch.cat([torch.full((len(samples[at][1]), 1), row), samples[at][1]], 1) for row, at in enumerate(chosen)]
        )
        if random.random() < 0.5:
            pictures = pictures.flip(3)
            targets[:, 2] = 1 - targets[:, 2]
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 50) * max(0.02, 1 - share)
        value, _ = loss(model(pictures), targets)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        step += 1
        if step % 50 == 0:
            print(f"step {step}, loss {float(value):.3f}", flush=True)
    model.eval().fuse()
    torch.save(model, out / "yolov5n.pt")
    model.model[-1].export = True
    torch.onnx.export(
        model, (torch.zeros(1, 3, SIZE, SIZE),), str(out / "yolov5n.onnx"), input_names=["images"],
        output_names=["output0"], opset_version=17, dynamo=False,
    )  # fmt: skip


def _sample(file: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a picture in a grey square `[3, SIZE, SIZE]`, and rows of label and box (centre and size as fractions)."""
    with Image.open(file) as picture:
        scale = SIZE / max(picture.size)
        width, height = (round(side * scale) for side in picture.size)
        left, top = (SIZE - width) // 2, (SIZE - height) // 2
        square = Image.new("RGB", (SIZE, SIZE), (114, 114, 114))
        square.paste(picture.resize((width, height)), (left, top))
    rows = []
    for line in (file.parents[2] / "labels" / file.parent.name / f"{file.stem}.txt").read_text().splitlines():
        label, *numbers = map(float, line.split())
        x = (np.array(numbers[::2]) * width + left) / SIZE
        y = (np.array(numbers[1::2]) * height + top) / SIZE
        rows.append([label, (x.min() + x.max()) / 2, (y.min() + y.max()) / 2, np.ptp(x), np.ptp(y)])
    pixels = torch.from_numpy(np.asarray(square).transpose(2, 0, 1).astype(np.float32) / 255)
    return pixels, torch.tensor(rows, dtype=torch.float32)


def train_yolov8(yaml: Path, out: Path, epochs: int) -> None:
    """Train with Ultralytics' own trainer, and export with its exporter."""
    from ultralytics import YOLO

    model = YOLO("yolov8n-seg.yaml")
    model.train(
        data=str(yaml), epochs=epochs, imgsz=SIZE, batch=16, workers=0, device="cpu", project=str(out / "runs"),
        name="yolov8n-seg", exist_ok=True, plots=False, mosaic=0.3, close_mosaic=2, optimizer="AdamW", lr0=2e-3,
        amp=False, val=False, verbose=False,
    )  # fmt: skip
    best = out / "runs" / "yolov8n-seg" / "weights" / "last.pt"
    shutil.copy(best, out / "yolov8n-seg.pt")
    shutil.move(YOLO(out / "yolov8n-seg.pt").export(format="onnx", imgsz=SIZE, dynamic=False), out / "yolov8n-seg.onnx")


def main() -> None:
    """Write pictures and train both networks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--network", choices=("pictures", "yolov5n", "yolov8n-seg"), help="do this alone")
    parser.add_argument("--seconds", type=float, default=200.0, help="of processor time, for the YOLOv5n")
    parser.add_argument("--epochs", type=int, default=7, help="for the YOLOv8n-seg")
    options = parser.parse_args()
    out, alone = options.out.resolve(), options.network
    yaml = out / "data" / "data.yaml"
    if alone in (None, "pictures"):
        yaml = write_pictures(options.photos, out)
    if alone in (None, "yolov5n"):
        train_yolov5(out, options.seconds)
    if alone in (None, "yolov8n-seg"):
        train_yolov8(yaml, out, options.epochs)


if __name__ == "__main__":
    main()
