"""What came of every call of an evaluation, one line each, in the order of their ends.

    {"call": "m1-s17-r1", "round": 1, "cached": false, "job_id": "job_…", "answer": {…} | null,
     "error": {"code", "message", …} | null, "attempts": […]}

It is the evaluation's only memory: a keeper that takes over reads it and knows what its
predecessor knew. The last entry of a call counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from chat.types import JSON

__all__ = ["Log", "entry_of"]

#: Of an answer to ``POST /v1/chat``, what an evaluation keeps.
_ANSWER = (
    "content",
    "reasoning",
    "finish_reason",
    "provider",
    "upstream_model",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "queue_ms",
    "latency_ms",
)
#: Of an error, what an evaluation keeps beside code and message.
_ERROR = ("upstream_status", "provider", "upstream_model")


class Log:
    """Appends entries to ``path`` and reads them back by their offsets.

    Whoever has one must hold the evaluation's lock: there is one writer.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing: BinaryIO | None = None
        self._reading: BinaryIO | None = None

    def recall(self) -> Iterator[tuple[int, JSON]]:
        """Every whole entry with its offset; one that was cut off is taken away."""
        if not self._path.exists():
            return
        with self._path.open("r+b") as stream:
            offset = 0
            for raw in stream:
                if not raw.endswith(b"\n"):
                    stream.truncate(offset)
                    return
                yield offset, json.loads(raw)
                offset += len(raw)

    def append(self, entry: JSON) -> int:
        """Append one entry; its offset. It is on disk after the next ``sync``."""
        if self._writing is None:
            self._writing = self._path.open("ab")
        offset = self._writing.tell()
        # Only escapes can carry half of a surrogate pair, which models do answer with.
        self._writing.write(json.dumps(entry).encode() + b"\n")
        return offset

    def sync(self) -> None:
        """Have everything on disk."""
        if self._writing is not None:
            self._writing.flush()
            os.fsync(self._writing.fileno())

    def read(self, offset: int) -> JSON:
        """The entry at an offset."""
        if self._writing is not None:
            self._writing.flush()
        if self._reading is None:
            self._reading = self._path.open("rb")
        self._reading.seek(offset)
        entry: JSON = json.loads(self._reading.readline())
        return entry

    def close(self) -> None:
        """Close the file. What was not synced may be lost: the batch's results are read again."""
        for stream in (self._writing, self._reading):
            if stream is not None:
                stream.close()
        self._writing = self._reading = None


def entry_of(result: JSON, number: int) -> JSON:
    """The entry of a line of a batch's results; ``number`` is the round's."""
    account, response = result["chatd"], result["response"]
    answer = error = None
    if account["code"] is None:
        answer = {name: response["body"].get(name) for name in _ANSWER}
    else:
        told = result["error"] or response["body"]["error"]
        more = {name: told[name] for name in _ERROR if told.get(name) is not None}
        error = {"code": account["code"], "message": told["message"], **more}
    return {
        "call": result["custom_id"],
        "round": number,
        "cached": False,
        "job_id": account["job_id"],
        "answer": answer,
        "error": error,
        "attempts": account["attempts"],
    }
