"""Looking again and again at something while a bench goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self

__all__ = ["Sampler"]


class Sampler:
    """Calls ``look`` on entering, and then every ``every_s`` seconds in a thread."""

    def __init__(self, look: Callable[[], None], every_s: float) -> None:
        self._look = look
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sampler")

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._every_s):
            self._look()
