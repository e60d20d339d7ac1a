"""An avatar: a layered puppet that does what a face does, drawn over another clip.

Layers are shifted by their depth as the head turns, the head is tilted as a whole, eyes and mouth open as the face's
do. Everything is smoothed with the One-Euro filter. The built-in puppet is drawn here; a folder of PNG files replaces
its layers, each as large as the whole head: `back`, `face`, `eyes` (open), `lids` (closed), `mouth` (open), `lips`
(closed), `hair`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from plimsoll.errors import ImageError, InputError
from plimsoll.inference.drawing.canvas import Canvas, canvas_of, paste, read_sprite
from plimsoll.inference.drawing.face import SCHEMES, Face, points_of, read_face, require_opencv
from plimsoll.inference.video.clip import Clip, VideoFrame
from plimsoll.inference.video.smoothing import OneEuro
from plimsoll.tasks import Answer

LAYERS = ("back", "face", "eyes", "lids", "mouth", "lips", "hair")
"""From behind to front."""
_DEPTHS = {"back": -0.06, "face": 0.0, "eyes": 0.07, "lids": 0.07, "mouth": 0.08, "lips": 0.08, "hair": 0.03}
"""How far a layer moves, of the head's size, for a head that is turned by 90 degrees."""
_SIDE = 480
_SHARE = 0.5
"""Of the frame's height: the head."""
_EYES_AT, _MOUTH_AT = 0.53, 0.74
"""Heights in the head about which eyes and mouth are opened."""
_MARGIN = 0.25
_SKIN, _HAIR, _WHITE, _IRIS, _LINE, _LIP = "#ffdcc4", "#4a3b78", "#ffffff", "#3a7bd5", "#3b2a2a", "#b5484f"
_EASE_S = 1.0
"""After so long without a face, the puppet looks ahead and stands still."""


class AvatarLayer:
    """Draws a puppet over a clip (or, without `over`, over the frame itself)."""

    def __init__(self, layers: dict[str, Image.Image], over: str | None = None) -> None:
        self._layers = layers
        self._over = _Background(over) if over is not None else None
        self._filter = OneEuro(1.5, 6.0)
        self._face = Face(0.0, 0.0, 0.0, (1.0, 1.0), 0.0, (0.5, 0.5), 0.5)
        self._seen: float | None = None

    def paint(self, canvas: Canvas, answer: Answer, time: float | None) -> Canvas:
        """Return the frame with the puppet as the face in the answer moves it."""
        at = 0.0 if time is None else time
        if self._seen is not None and at < self._seen:  # another clip
            self._filter, self._seen = OneEuro(1.5, 6.0), None
        if len(given := points_of(answer)) in SCHEMES:
            points = np.array(given, np.float64)
            face = read_face(points, canvas.shape[1], canvas.shape[0])
            self._face, self._seen = Face.of_values(self._filter(face.values(), at)), at
        elif self._seen is not None and at - self._seen > _EASE_S:
            self._face = replace(self._face, yaw=0.0, pitch=0.0, roll=0.0, eyes=(1.0, 1.0), mouth=0.0)
        below = self._over.at(at) if self._over is not None else canvas
        side = round(below.shape[0] * _SHARE)
        sprite = self.puppet(self._face, side)
        left = round(below.shape[1] * (0.75 + 0.25 * (self._face.centre[0] - 0.5)) - sprite.shape[1] / 2)
        top = round(below.shape[0] * (1.0 + 0.15 * (self._face.centre[1] - 0.5)) - 0.85 * sprite.shape[0])
        paste(below, sprite, left, top)
        return below

    def puppet(self, face: Face, side: int) -> Canvas:
        """Return the head as a sprite, RGBA; `side` is the height of the head, round which there is a margin."""
        full = round(_SIDE * (1 + 2 * _MARGIN))
        image = Image.new("RGBA", (full, full))
        turn = np.sin(face.yaw), np.sin(face.pitch)
        for name in LAYERS:
            layer = self._layers.get(name)
            if layer is None:
                continue
            shaped = self._shaped(name, layer, face)
            if shaped is not None:
                depth = _DEPTHS[name] * _SIDE
                x, y = round(_MARGIN * _SIDE + 2 * depth * turn[0]), round(_MARGIN * _SIDE + 2 * depth * turn[1])
                image.alpha_composite(shaped, (x, y))
        narrow = round(full * (1 - 0.12 * abs(turn[0])))
        turned = image.resize((narrow, full), Image.Resampling.BILINEAR).rotate(
            -np.degrees(face.roll), Image.Resampling.BILINEAR, center=(narrow / 2, full * 0.75)
        )
        size = round(side * (1 + 2 * _MARGIN))
        return np.asarray(turned.resize((round(size * narrow / full), size), Image.Resampling.BILINEAR))

    def _shaped(self, name: str, layer: Image.Image, face: Face) -> Image.Image | None:
        """Return a layer as the face has it: eyes and mouth are squeezed about their own height, each eye by itself."""
        if name == "eyes":
            halves = [_squeezed(layer, _EYES_AT, openness) for openness in face.eyes]
            image = halves[0].copy()
            middle = image.width // 2
            image.paste(halves[1].crop((middle, 0, image.width, image.height)), (middle, 0))
            return image
        if name == "lids":
            image = layer.copy()
            middle = image.width // 2
            for index, openness in enumerate(face.eyes):
                if openness > 0.25:
                    image.paste((0, 0, 0, 0), (index * middle, 0, (index + 1) * middle, image.height))
            return image
        if name == "mouth":
            return _squeezed(layer, _MOUTH_AT, face.mouth) if face.mouth > 0.08 else None
        if name == "lips":
            return layer if face.mouth <= 0.08 else None
        return layer


def _squeezed(layer: Image.Image, middle: float, share: float) -> Image.Image:
    """Return a layer whose height is a share of what it was, about a height of it."""
    height = max(round(layer.height * share), 1)
    image = Image.new("RGBA", layer.size)
    if share < 0.05:
        return image
    small = layer.resize((layer.width, height), Image.Resampling.BILINEAR)
    image.paste(small, (0, round(layer.height * middle - height * middle)))
    return image


def require_points(points: int | None) -> None:
    """Raise InputError unless these are the points of a face that is known; BackendMissingError without OpenCV."""
    if points not in SCHEMES:
        raise InputError(
            f"an avatar needs the points of a face, {' or '.join(map(str, SCHEMES))} of them; the model gives {points}",
            "Choose a model of the task landmarks with them.",
        )
    require_opencv()


def load_puppet(folder: str | Path | None) -> dict[str, Image.Image]:
    """Return the layers in a folder, or with None those of the built-in puppet; raises InputError."""
    if folder is None:
        return _built_in()
    layers = {}
    for name in LAYERS:
        path = Path(folder) / f"{name}.png"
        if path.is_file():
            layers[name] = Image.fromarray(read_sprite(path)).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    if "face" not in layers:
        raise InputError(
            f"{folder} holds no face.png", f"A puppet is a folder of PNG files: {', '.join(LAYERS)}; face at least."
        )
    return layers


def _built_in() -> dict[str, Image.Image]:
    """Draw the layers of the built-in puppet, at twice their size so that edges are smooth."""
    scale = 2 * _SIDE

    def layer(*shapes: tuple[str, tuple[float, ...], dict[str, Any]]) -> Image.Image:
        image = Image.new("RGBA", (scale, scale))
        draw = ImageDraw.Draw(image)
        for kind, box, options in shapes:
            width = {"width": round(options["width"] * scale)} if "width" in options else {}
            getattr(draw, kind)([value * scale for value in box], **{**options, **width})
        return image.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)

    eyes = [
        shape
        for x in (0.33, 0.67)
        for shape in (
            ("ellipse", (x - 0.095, 0.43, x + 0.095, 0.63), {"fill": _WHITE, "outline": _LINE, "width": 0.012}),
            ("ellipse", (x - 0.055, 0.47, x + 0.055, 0.61), {"fill": _IRIS}),
            ("ellipse", (x - 0.028, 0.505, x + 0.028, 0.575), {"fill": _LINE}),
            ("ellipse", (x - 0.035, 0.485, x - 0.005, 0.515), {"fill": _WHITE}),
        )
    ]
    brows = [
        ("arc", (x - 0.1, 0.34, x + 0.1, 0.46), {"start": 200, "end": 340, "fill": _HAIR, "width": 0.02})
        for x in (0.33, 0.67)
    ]
    cheeks = [("ellipse", (x - 0.06, 0.66, x + 0.06, 0.71), {"fill": "#ffb8a8"}) for x in (0.25, 0.75)]
    lids = [
        ("arc", (x - 0.09, 0.47, x + 0.09, 0.59), {"start": 20, "end": 160, "fill": _LINE, "width": 0.016})
        for x in (0.33, 0.67)
    ]
    return {
        "back": layer(("ellipse", (0.04, 0.02, 0.96, 0.92), {"fill": _HAIR})),
        "face": layer(
            ("ellipse", (0.13, 0.14, 0.87, 0.95), {"fill": _SKIN, "outline": _LINE, "width": 0.008}),
            *cheeks,
            ("line", (0.5, 0.62, 0.49, 0.655), {"fill": "#d9a58c", "width": 0.012}),
        ),
        "eyes": layer(*eyes),
        "lids": layer(*lids),
        "mouth": layer(
            ("ellipse", (0.40, 0.66, 0.60, 0.84), {"fill": "#7a2430", "outline": _LINE, "width": 0.01}),
            ("ellipse", (0.44, 0.76, 0.56, 0.83), {"fill": _LIP}),
        ),
        "lips": layer(("arc", (0.42, 0.69, 0.58, 0.78), {"start": 20, "end": 160, "fill": _LIP, "width": 0.014})),
        "hair": layer(("chord", (0.08, 0.03, 0.92, 0.72), {"start": 188, "end": 352, "fill": _HAIR}), *brows),
    }


class _Background:
    """The frames of a second clip, at any times that grow; it begins anew at its end."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._frames: Iterator[VideoFrame] = iter(Clip(path))
        self._current = self._first()
        self._next: VideoFrame | None = next(self._frames, None)
        self._started = 0.0

    def _first(self) -> VideoFrame:
        first = next(self._frames, None)
        if first is None:
            raise InputError(f"{self._path} has no frames to draw over")
        return first

    def at(self, time: float) -> Canvas:
        """Return a copy of the frame that is shown at a time."""
        if time < self._started + self._current.time:
            self._restart(time)
        while self._next is not None and self._started + self._next.time <= time:
            self._current = self._next
            try:
                self._next = next(self._frames, None)
            except ImageError:
                self._next = None
            if self._next is None:
                self._restart(time)
        return canvas_of(self._current.pixels).copy()

    def _restart(self, time: float) -> None:
        self._frames = iter(Clip(self._path))
        self._current, self._started = self._first(), time
        self._next = next(self._frames, None)
