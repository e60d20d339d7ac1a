"""Both clients, used alike."""

from __future__ import annotations

import pytest

from helpers.client_calls import Do, asynchronous, blocking


@pytest.fixture(params=[blocking, asynchronous], ids=["Client", "AsyncClient"])
def use(request: pytest.FixtureRequest) -> Do:
    """Do something with a client: `use(url, lambda client: client.predict(picture), **options)`."""
    chosen: Do = request.param
    return chosen
