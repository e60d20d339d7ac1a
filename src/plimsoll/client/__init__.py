"""The client of a service that `plimsoll serve` started.

>>> import plimsoll
>>> with plimsoll.Client("http://localhost:8000") as client:  # doctest: +SKIP
...     print(client.predict("photo.jpg").score)

```
errors        the exceptions
answers       what the service answers, typed
uploads       paths, bytes and file objects, grouped into requests of bounded size
exchange      one call until it is answered: what to send, when to retry, when to give up (no I/O)
prediction    one request for predictions: its body, and results from the reply
transport     httpx, imported when a client is created
blocking      Client
asynchronous  AsyncClient
```
"""

from __future__ import annotations

from plimsoll.client.answers import Answer, Box, ModelInfo, Result
from plimsoll.client.asynchronous import AsyncClient
from plimsoll.client.blocking import Client
from plimsoll.client.errors import BusyError, DeadlineError, ItemError, RejectedError, ServiceError, UnreachableError
from plimsoll.client.exchange import PredictOptions
from plimsoll.client.uploads import Picture

__all__ = [
    "Answer",
    "AsyncClient",
    "Box",
    "BusyError",
    "Client",
    "DeadlineError",
    "ItemError",
    "ModelInfo",
    "Picture",
    "PredictOptions",
    "RejectedError",
    "Result",
    "ServiceError",
    "UnreachableError",
]
