"""What every request goes through before an interface sees it, from the outside in.

```
AccessLog         its id, and a line when it is over
SecurityHeaders   what browsers are told
CORS              off unless it is set; answers what browsers ask beforehand, which carries no key
Guard             keys and rates
Traced            where traces are asked for
the application
```
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.types import ASGIApp

from plimsoll.serve.access.authorizer import Authorizer
from plimsoll.serve.access.settings import AccessSettings
from plimsoll.serve.http.access_log import AccessLog
from plimsoll.serve.http.guard import Guard, Needs
from plimsoll.serve.http.headers import CorsSettings, SecurityHeaders, cors
from plimsoll.serve.log import LineHandler, LogSettings
from plimsoll.serve.tracing import Traced, Tracing


@dataclass(frozen=True)
class Shell:
    """What is around the application. `door` may be shared with gRPC, so that rates hold over both."""

    door: Authorizer
    access: AccessSettings
    cors: CorsSettings
    log: LogSettings
    lines: LineHandler | None = None
    """Where requests are logged; None for nowhere (they have ids all the same)."""
    tracing: Tracing | None = None

    def around(self, app: Starlette, contracts: Iterable[str] = ()) -> ASGIApp:
        """Return the application inside of everything else; `contracts` are the paths at which it answers contracts."""
        traced = app if self.tracing is None else Traced(app, self.tracing)
        guard = Guard(traced, self.door, Needs(self.access, contracts), app.routes)
        return AccessLog(SecurityHeaders(cors(guard, self.cors)), self.lines, self.log)
