"""What logging as chatd configures it writes, for tests to read."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

from chat.logs import configure

__all__ = ["Written", "logging_into_memory"]


class Written:
    """What this process has logged since ``configure``."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def configure(self, form: str = "json", level: str = "debug") -> logging.Logger:
        """Begin; a logger to log something with."""
        with contextlib.redirect_stderr(self.stream):
            configure("test", level, form)
        return logging.getLogger("test.logs")

    @property
    def lines(self) -> list[str]:
        """Every line, cut wherever Unicode ends one."""
        return self.stream.getvalue().splitlines()

    @property
    def events(self) -> list[dict[str, Any]]:
        """Every line as the JSON object that it is; what Python alone takes for JSON fails."""
        return [json.loads(line, parse_constant=_refuse) for line in self.lines]


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


@contextlib.contextmanager
def logging_into_memory() -> Iterator[Written]:
    """Logging of this process, which afterwards is as it was."""
    written = Written()
    root = logging.getLogger()
    level = root.level
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    try:
        yield written
    finally:
        logging.captureWarnings(capture=False)
        sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
        root.setLevel(level)
        for handler in root.handlers[:]:
            if isinstance(handler, logging.StreamHandler) and handler.stream is written.stream:
                root.removeHandler(handler)
