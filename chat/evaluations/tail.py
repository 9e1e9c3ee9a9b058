"""Reading the results of a batch while it runs: each whole line once, wherever its file is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["Tail"]


class Tail:
    """The lines of a file that is appended to; ``paths`` says where it may be.

    Once it was found it may be given another name.
    """

    def __init__(self, paths: Callable[[], Iterator[Path]]) -> None:
        self._paths = paths
        self._stream: BinaryIO | None = None

    def lines(self) -> Iterator[bytes]:
        """The whole lines that are new."""
        stream = self._stream or self._find()
        while stream is not None:
            begins = stream.tell()
            raw = stream.readline()
            if not raw.endswith(b"\n"):
                stream.seek(begins)
                return
            yield raw

    def close(self) -> None:
        """Let go of the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _find(self) -> BinaryIO | None:
        for path in self._paths():
            try:
                self._stream = path.open("rb")
            except FileNotFoundError:
                continue
            return self._stream
        return None
