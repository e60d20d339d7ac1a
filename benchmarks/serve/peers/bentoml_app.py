"""BentoML: a service of 4 workers, a photo a call.

bentoml serve peers.bentoml_app:OpenNsfw --port $PORT
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType
from peers.steps import open_session, score


@bentoml.service(workers=4, threads=1, traffic={"timeout": 120})
class OpenNsfw:
    """The network in a worker."""

    def __init__(self) -> None:
        self.session = open_session()

    @bentoml.api(route="/predict")
    def predict(self, photo: Annotated[Path, ContentType("image/jpeg")], /) -> dict[str, float]:
        """Answer the body's photo."""
        return {"score": score(self.session, photo.read_bytes())}
