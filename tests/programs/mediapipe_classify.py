"""Let MediaPipe Tasks' own ImageClassifier score pictures: `mediapipe_classify.py MODEL PICTURES.npy LABELS
SCORES.npy`.

PICTURES are uint8 `[N, height, width, 3]`, RGB; LABELS are separated by commas, and SCORES get a column for each.
"""

from __future__ import annotations

import sys

import mediapipe as mp
import numpy as np
from mediapipe.tasks.python import BaseOptions
from mediapipe.tasks.python.vision import ImageClassifier, ImageClassifierOptions


def main(model: str, pictures: str, labels: str, scores: str) -> None:
    """Score every picture."""
    with ImageClassifier.create_from_options(
        ImageClassifierOptions(base_options=BaseOptions(model_asset_path=model))
    ) as classifier:
        rows = []
        for picture in np.load(pictures):
            classified = classifier.classify(mp.Image(image_format=mp.ImageFormat.SRGB, data=picture))
            by_label = {category.category_name: category.score for category in classified.classifications[0].categories}
            rows.append([by_label[label] for label in labels.split(",")])
    np.save(scores, np.asarray(rows, np.float32))


if __name__ == "__main__":
    main(*sys.argv[1:])
