"""The two files of results that a running batch writes, each line of them once.

They are also its memory: which lines are done is read back from them, so that nothing else has to
agree with them after a crash. A line that was cut off while it was written is taken away.
"""

from __future__ import annotations

import json
import os
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from chat.batches.batch import Progress
from chat.types import JSON

__all__ = ["Results"]

#: More than are ever written down before Redis is told to let go of their records.
_LAST = 2000


class Results:
    """Appends results to ``output.jsonl`` and ``errors.jsonl``; ``done`` has the lines in them.

    Whoever makes one must hold the batch's lock: there is one writer.
    """

    def __init__(self, folder: Path) -> None:
        self.output = folder / "output.jsonl"
        self.errors = folder / "errors.jsonl"
        self.done: set[int] = set()
        self._streams: dict[Path, BinaryIO] = {}

    def recall(self, progress: Progress) -> list[str]:
        """Count what is there already, and end both files after their last whole line.

        Returns the jobs of the last results, of which Redis may still have the records.
        """
        last: deque[str] = deque(maxlen=_LAST)
        for path in (self.output, self.errors):
            try:
                stream = path.open("r+b")
            except FileNotFoundError:
                continue
            with stream:
                end = 0
                for raw in stream:
                    if not raw.endswith(b"\n"):
                        stream.truncate(end)
                        break
                    end += len(raw)
                    result: JSON = json.loads(raw)
                    self.done.add(result["chatd"]["line"])
                    progress.count(result)
                    if result["chatd"]["job_id"] is not None:
                        last.append(result["chatd"]["job_id"])
        return list(last)

    def add(self, result: JSON, progress: Progress) -> None:
        """Append one result; it is on disk after the next ``sync``."""
        number = result["chatd"]["line"]
        if number in self.done:
            return
        failed = progress.count(result)
        stream = self._stream(self.errors if failed else self.output)
        stream.write(_encode(result) + b"\n")
        self.done.add(number)

    def sync(self) -> None:
        """Have everything on disk; then what it came from may go."""
        for stream in self._streams.values():
            stream.flush()
            os.fsync(stream.fileno())

    def close(self) -> None:
        """Close both files. What was not synced may be lost: whoever recalls them does it again."""
        while self._streams:
            _, stream = self._streams.popitem()
            with suppress(OSError):  # On a full disk; the file is closed all the same.
                stream.close()

    def _stream(self, path: Path) -> BinaryIO:
        if path not in self._streams:
            self._streams[path] = path.open("ab")
        return self._streams[path]


def _encode(result: JSON) -> bytes:
    try:
        return json.dumps(result, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        # A provider may answer with half of a surrogate pair, which only an escape can carry.
        return json.dumps(result).encode()
