"""A web package: a folder that any static web server serves, and whose page answers photographs in the browser.

It holds the network (or a cascade's networks), its Spec, the input steps in JavaScript, ONNX Runtime Web, and golden
pictures that the page answers again to check itself. `package` and `package_cascade` write one; `browse` lets one
answer pictures in headless Chromium.
"""

from __future__ import annotations

from plimsoll.export.web.answers import BrowserAnswers, browse
from plimsoll.export.web.cascade import package_cascade
from plimsoll.export.web.folder import check_destination, package

__all__ = ["BrowserAnswers", "browse", "check_destination", "package", "package_cascade"]
