"""The client of a service that `plimsoll serve` started.

>>> import plimsoll
>>> with plimsoll.Client("http://localhost:8000") as client:  # doctest: +SKIP
...     print(client.predict("photo.jpg").score)

```
errors        the exceptions
answers       what the service answers, typed
exchange      one call until it is answered: what to send, when to retry, when to give up (no I/O)
prediction    one request for predictions: from pictures to its body, from the reply to results
transport     httpx, imported when a client is created
clients       Client and AsyncClient
```
"""

from __future__ import annotations

from plimsoll.client.answers import Answer, Box, FrameResult, ModelInfo, Result
from plimsoll.client.clients import AsyncClient, Client
from plimsoll.client.errors import BusyError, DeadlineError, ItemError, RejectedError, ServiceError, UnreachableError
from plimsoll.client.exchange import PredictOptions
from plimsoll.client.prediction import Picture

__all__ = [
    "Answer",
    "AsyncClient",
    "Box",
    "BusyError",
    "Client",
    "DeadlineError",
    "FrameResult",
    "ItemError",
    "ModelInfo",
    "Picture",
    "PredictOptions",
    "RejectedError",
    "Result",
    "ServiceError",
    "UnreachableError",
]
