"""Plimsoll's boxes and masks against those of the networks' authors' own programs, on the same pictures.

    python benchmarks/detectors.py ultralytics NETWORK.onnx PICTURES --python ENV/bin/python --size 128 --labels a,b,c
    python benchmarks/detectors.py yolov5      NETWORK.onnx PICTURES …
    python benchmarks/detectors.py nudenet     NETWORK.onnx PICTURES …

ENV is an environment of its own with that program (`ultralytics`, `yolov5`, `nudenet`: AGPL-3.0, never a dependency of
Plimsoll). It is run with this file's `--answer`, and writes what it finds as JSON. Boxes match from IoU 0.95 on, of one
label, the best first; masks are compared in matched boxes.

All three programs resize with OpenCV, and so does fast preprocessing: the networks read the same bytes. The reference's
exact arithmetic differs from OpenCV's by a level in 8 % of the values (`--preprocessing reference`).

NudeNet's program swaps red and blue twice, so that the network sees BGR, suppresses across labels, and cuts boxes to
whole pixels, those that begin outside of the picture without getting narrower, before it suppresses. The same is done
here, but for the last. It also pads to a square before it resizes (`pad_first`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONFIDENCE, IOU = 0.25, 0.45
LEAST_IOU, NEAR = 0.95, 0.005
"""Boxes whose score lies no farther from the threshold than NEAR may be on either side of it."""

Found = list[dict[str, Any]]
"""Boxes: label, score, box (x0, y0, x1, y1), and the mask's COCO run lengths where there are masks."""


def _ultralytics(network: str, pictures: list[str], size: int) -> list[Found]:
    from ultralytics import YOLO

    model, answers = YOLO(network), []
    for picture in pictures:
        (result,) = model.predict(
            picture, imgsz=size, conf=CONFIDENCE, iou=IOU, rect=False, retina_masks=True, verbose=False, device="cpu"
        )
        boxes = zip(result.boxes.xyxy.tolist(), result.boxes.conf.tolist(), result.boxes.cls.tolist(), strict=True)
        items: Found = [{"box": box, "score": score, "label": int(label)} for box, score, label in boxes]
        if result.masks is not None:
            for item, mask in zip(items, result.masks.data.numpy() > 0.5, strict=True):
                item["mask"] = _run_lengths(mask)
        answers.append(items)
    return answers


def _run_lengths(mask: Any) -> dict[str, Any]:
    import numpy as np

    flat = np.concatenate([[False], mask.T.ravel(), [not mask.T.ravel()[-1]]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return {"size": list(mask.shape), "counts": np.diff(edges, prepend=0).tolist()}


def _yolov5(network: str, pictures: list[str], size: int) -> list[Found]:
    """As `detect.py` of the authors does it with an ONNX file, without rounding positions to whole pixels.

    Its own `scale_boxes` takes away the half pixel of an odd number of padded ones, which its `letterbox` never added
    there, and has one scale for two rounded sides. Ultralytics has corrected both, so its `scale_boxes` is called.
    """
    import cv2
    import numpy as np
    import torch
    from ultralytics.utils.ops import scale_boxes
    from yolov5.models import common
    from yolov5.utils import downloads
    from yolov5.utils.augmentations import letterbox
    from yolov5.utils.general import non_max_suppression

    for module in (common, downloads):
        vars(module)["attempt_download_from_hub"] = lambda *_, **__: None  # The file is here.
    model, answers = common.DetectMultiBackend(network), []
    for picture in pictures:
        image = cv2.imread(picture)
        assert image is not None, picture
        square = letterbox(image, size, auto=False)[0][:, :, ::-1].transpose(2, 0, 1)
        tensor = torch.from_numpy(np.ascontiguousarray(square))[None].float() / 255
        (rows,) = non_max_suppression(model(tensor), CONFIDENCE, IOU)
        rows[:, :4] = scale_boxes(tensor.shape[2:], rows[:, :4], image.shape)
        answers.append([{"box": row[:4], "score": row[4], "label": int(row[5])} for row in rows.tolist()])
    return answers


def _nudenet(network: str, pictures: list[str], size: int) -> list[Found]:
    from nudenet import NudeDetector
    from nudenet.nudenet import __labels as names

    detector = NudeDetector(model_path=network, inference_resolution=size)
    return [
        [
            {"box": [x, y, x + width, y + height], "score": item["score"], "label": names.index(item["class"])}
            for item in detector.detect(picture)
            for x, y, width, height in [item["box"]]
        ]
        for picture in pictures
    ]


PEERS: dict[str, Callable[[str, list[str], int], list[Found]]] = {
    "ultralytics": _ultralytics,
    "yolov5": _yolov5,
    "nudenet": _nudenet,
}


def _spec(peer: str, labels: list[str], size: int, masks: bool) -> Any:
    from plimsoll.spec.files import validate

    resize: dict[str, Any] = {"step": "resize", "width": size, "height": size, "convention": "opencv"}
    resize |= {"fit": "letterbox", "pad_value": 114}
    output: dict[str, Any] = {
        "task": "detect",
        "head": "yolov8",
        "labels": labels,
        "confidence": CONFIDENCE,
        "iou": IOU,
    }
    if peer == "nudenet":
        resize |= {"pad_value": 0, "pad_position": "end", "pad_first": True}
        output |= {"iou": 1.0, "class_agnostic_iou": IOU}
    if peer == "yolov5":
        output["head"] = "yolov5"
    if masks:
        output |= {"prototypes": "output1", "coefficients": 32}
    channels = [{"step": "channels", "order": "BGR"}] if peer == "nudenet" else []
    after = [*channels, {"step": "scale", "divisor": 255}, {"step": "layout", "order": "NCHW"}]
    steps = [{"step": "decode"}, resize, *after]
    return validate({"name": peer, "input": {"steps": steps}, "output": output})


def _cut(box: tuple[float, float, float, float], picture: str) -> list[int]:
    """Return a box as NudeNet's program cuts it."""
    from PIL import Image

    with Image.open(picture) as image:
        width, height = image.size
    x, y = (max(0.0, min(value, most)) for value, most in zip(box[:2], (width, height), strict=True))
    x, y, wide, high = (
        int(value) for value in (x, y, min(box[2] - box[0], width - x), min(box[3] - box[1], height - y))
    )
    return [x, y, x + wide, y + high]


def _own(peer: str, network: Path, pictures: list[str], options: argparse.Namespace) -> list[Found]:
    import onnx

    from plimsoll.core.model import Model
    from plimsoll.inference.predictor import Predictor, ResolvedModel

    masks = len(onnx.load(network).graph.output) > 1
    labels = options.labels.split(",")
    model = Model(network, "onnx", _spec(peer, labels, options.size, masks))
    with Predictor(ResolvedModel(model, preprocessing=options.preprocessing)) as predictor:
        return [
            [
                {
                    "box": _cut(box.box, picture) if peer == "nudenet" else box.box,
                    "score": box.score,
                    "label": labels.index(box.label),
                }
                | ({"mask": box.mask.row()} if box.mask is not None else {})
                for box in getattr(predictor.predict(Path(picture)), "boxes", ())
            ]
            for picture in pictures
        ]


def _compare(own: list[Found], theirs: list[Found], threshold: float) -> dict[str, Any]:
    """Return how many boxes of both there are, how many match, and how far matched ones lie apart."""
    import numpy as np

    from plimsoll.metrics.boxes import overlaps

    total = matched = left_out = 0
    scores, errors, shared, union = [], [], 0, 0
    unmatched = []
    for at, (first, second) in enumerate(zip(own, theirs, strict=True)):
        corners = [np.array([item["box"] for item in items], float).reshape(-1, 4) for items in (first, second)]
        overlap = overlaps(*corners)
        same = np.array([[a["label"] == b["label"] for b in second] for a in first], bool).reshape(overlap.shape)
        usable = np.where(same, overlap, -1.0)
        free = set(range(len(second)))
        for index, item in enumerate(first):
            best = max(free, key=lambda j: usable[index, j], default=None)
            if best is not None and usable[index, best] >= LEAST_IOU:
                free.remove(best)
                matched += 1
                total += 1
                scores.append(abs(item["score"] - second[best]["score"]))
                errors.append(float(overlap[index, best]))
                if "mask" in item and "mask" in second[best]:
                    a, b = (_pixels(mask) for mask in (item["mask"], second[best]["mask"]))
                    shared, union = shared + int((a & b).sum()), union + int((a | b).sum())
            elif item["score"] - threshold < NEAR:
                left_out += 1
            else:
                total += 1
                unmatched.append((at, item, float(usable[index].max(initial=-1.0))))
        for j in free:
            if second[j]["score"] - threshold < NEAR:
                left_out += 1
            else:
                total += 1
                unmatched.append((at, second[j], float(usable[:, j].max(initial=-1.0))))
    return {
        "boxes": total, "matched": matched, "share": matched / max(total, 1), "at the threshold": left_out,
        "largest score difference": max(scores, default=0.0), "least IoU": min(errors, default=0.0),
        "mask IoU": shared / union if union else None, "unmatched": unmatched[:10],
    }  # fmt: skip


def _pixels(mask: dict[str, Any]) -> Any:
    import numpy as np

    height, width = mask["size"]
    flat = np.repeat(np.arange(len(mask["counts"])) % 2 == 1, mask["counts"])
    return np.concatenate([flat, np.zeros(height * width - len(flat), bool)]).reshape(width, height).T


def main() -> None:
    """Answer with the peer where `--answer` says so; else compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("network", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--labels", default="")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--preprocessing", choices=("reference", "fast"), default="fast")
    parser.add_argument("--answer", type=Path, help="the peer's part: replace this file's pictures by what it finds")
    options = parser.parse_args()
    suffixes = (".jpg", ".jpeg", ".png")
    files = sorted(path for path in options.pictures.iterdir() if path.suffix.lower() in suffixes)
    pictures = [str(path.resolve()) for path in files[: options.count]]
    if options.answer:
        answers = PEERS[options.peer](str(options.network), json.loads(options.answer.read_text()), options.size)
        options.answer.write_text(json.dumps(answers))
        return
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answers.json"
        answer.write_text(json.dumps(pictures))
        subprocess.run([options.python, __file__, *sys.argv[1:], "--answer", str(answer)], check=True)
        theirs = json.loads(answer.read_text())
        own = _own(options.peer, options.network, pictures, options)
    print(f"{len(pictures)} pictures")
    for name, value in _compare(own, theirs, CONFIDENCE).items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
