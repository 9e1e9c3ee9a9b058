"""The lines of a batch's input, which are read when they are sent and again when they are done."""

from __future__ import annotations

import math
from pathlib import Path
from typing import BinaryIO

from chat.batches.lines import Line, parse_line
from chat.batches.scan import Index

__all__ = ["Input"]

#: A line of up to so many bytes is kept as it was read while its job is on its way.
_KEPT_BYTES = 4096


class Input:
    """An input file whose lines were found good, by their places in the index."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: BinaryIO | None = None
        self._kept: dict[int, Line] = {}

    def raw(self, index: Index, place: int) -> bytes:
        """A line as it stands in the file."""
        if self._stream is None:
            self._stream = self._path.open("rb")
        self._stream.seek(index.offsets[place])
        return self._stream.readline()

    def to_send(self, index: Index, place: int) -> tuple[Line, int]:
        """A line that becomes a job, and how many bytes it has. ``done`` wants it once more."""
        raw = self.raw(index, place)
        line = self._parsed(index, place, raw)
        if len(raw) <= _KEPT_BYTES:
            self._kept[place] = line
        return line, len(raw)

    def done(self, index: Index, place: int) -> Line:
        """A line whose job is over; it is kept no longer."""
        return self._kept.pop(place, None) or self._parsed(index, place, self.raw(index, place))

    def close(self) -> None:
        """Let go of the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    @staticmethod
    def _parsed(index: Index, place: int, raw: bytes) -> Line:
        # It was found good; what has been configured since does not make it a fault.
        return parse_line(index.numbers[place], raw, max_timeout_s=math.inf)
