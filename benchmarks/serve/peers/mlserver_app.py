"""MLServer: 4 inference workers, a photo as a BYTES tensor of the Open Inference Protocol (base64: its HTTP side takes
no binary extension).

MLSERVER_HTTP_PORT=$PORT mlserver start peers/mlserver
"""

from __future__ import annotations

import base64

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from peers.steps import open_session, score


class OpenNsfw(MLModel):
    """The network as a custom runtime."""

    async def load(self) -> bool:
        """Open a session in this worker."""
        self.session = open_session()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer each photo of the first input."""
        scores = [score(self.session, base64.b64decode(photo)) for photo in payload.inputs[0].data]
        output = ResponseOutput(name="score", shape=[len(scores)], datatype="FP64", data=scores)
        return InferenceResponse(model_name=self.name, outputs=[output])
