"""What a fake camera sees: a white square that moves there and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np

WIDTH, HEIGHT, RATE = 320, 240, 20
LEFT, TOP, SIDE, SPEED = 20, 80, 80, 2
"""A white square begins at LEFT and moves by SPEED pixels a frame, there and back."""
COUNT = 100


def camera_clip(path: Path) -> Path:
    """Write what the camera sees, as Chromium's fake device reads it (YUV4MPEG2)."""
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F{RATE}:1 Ip A1:1 C420jpeg\n".encode())
        grey = np.full(WIDTH * HEIGHT // 2, 128, np.uint8).tobytes()
        for index in [*range(COUNT // 2), *reversed(range(COUNT // 2))]:
            luma = np.full((HEIGHT, WIDTH), 40, np.uint8)
            left = LEFT + SPEED * index
            luma[TOP : TOP + SIDE, left : left + SIDE] = 250
            file.write(b"FRAME\n" + luma.tobytes() + grey)
    return path
