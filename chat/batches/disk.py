"""JSON files that are there whole or as they were, whatever happens while they are written."""

from __future__ import annotations

import json
import os
from pathlib import Path

from chat.types import JSON

__all__ = ["read_json", "write_json"]


def read_json(path: Path) -> JSON:
    """What ``write_json`` wrote. Raises ``FileNotFoundError``."""
    value: JSON = json.loads(path.read_bytes())
    return value


def write_json(path: Path, value: JSON) -> None:
    """Write ``value`` beside ``path`` and put it in its place once it is on disk."""
    making = path.with_suffix(".new")
    with making.open("wb") as stream:
        stream.write(json.dumps(value).encode())
        stream.flush()
        os.fsync(stream.fileno())
    making.rename(path)
