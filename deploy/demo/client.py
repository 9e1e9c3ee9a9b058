"""A small HTTP client for the demo: JSON to and from servers on this machine."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import Any

from deploy.demo.processes import Child, DemoError

__all__ = ["Client", "wait_ready"]

# A proxy is for the way out, not for this machine.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Client:
    """JSON calls to one base URL."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def get(self, path: str, *, timeout_s: float) -> Any:
        """The body of a GET; raises ``DemoError`` for any status from 300 up and for no answer."""
        return self._call(urllib.request.Request(self.url + path), timeout_s)  # noqa: S310

    def post(self, path: str, body: dict[str, Any], *, timeout_s: float) -> Any:
        """The body that a POST is answered with; raises as ``get`` does."""
        request = urllib.request.Request(  # noqa: S310
            self.url + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        return self._call(request, timeout_s)

    def _call(self, request: urllib.request.Request, timeout_s: float) -> Any:
        asked = f"{request.get_method()} {request.full_url}"
        try:
            with _OPENER.open(request, timeout=timeout_s) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            raise DemoError(f"{asked}: status {error.code}: {text}") from error
        except (OSError, ValueError) as error:
            raise DemoError(f"{asked}: {error}") from error


def wait_ready(client: Client, path: str, child: Child, *, within_s: float) -> None:
    """Wait until ``path`` answers 200; ``DemoError`` when the process ends or time runs out."""
    until = time.monotonic() + within_s
    while True:
        try:
            client.get(path, timeout_s=2)
        except DemoError as error:
            if child.exit_code is not None:
                raise DemoError(f"{child.name} ended with exit code {child.exit_code}") from error
            if time.monotonic() > until:
                raise DemoError(f"{child.name} is not ready after {within_s:.0f} s") from error
            time.sleep(0.1)
        else:
            return
