"""The client of a service that `plimsoll serve` started.

>>> import plimsoll
>>> with plimsoll.Client("http://localhost:8000") as client:  # doctest: +SKIP
...     print(client.predict("photo.jpg").score)

```
errors        what can go wrong
answers       what the service says, typed
pictures      paths, bytes and file objects; requests of bounded size
exchange      one call until it is answered: what to send, when to try again, when to give up (no I/O)
transport     httpx, imported when a client is made
blocking      Client
asynchronous  AsyncClient
```
"""

from __future__ import annotations

from plimsoll.client.answers import Answer, Box, Result, ServedModel
from plimsoll.client.asynchronous import AsyncClient
from plimsoll.client.blocking import Client
from plimsoll.client.errors import BusyError, DeadlineError, ItemError, RejectedError, ServiceError, UnreachableError
from plimsoll.client.exchange import Wishes
from plimsoll.client.pictures import Picture

__all__ = [
    "Answer", "AsyncClient", "Box", "BusyError", "Client", "DeadlineError", "ItemError", "Picture", "RejectedError", "Result", "ServedModel", "ServiceError",
    "UnreachableError", "Wishes",
]  # fmt: skip
