"""What files need that are written safely: privacy, lasting, errors that a caller can act on."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import IO, Any

from chat.errors import StorageUnavailable
from chat.types import JSON

__all__ = [
    "create",
    "disk_errors",
    "lock_file",
    "new_file",
    "read_json",
    "sync_folder",
    "write_all",
    "write_json",
]


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Make an ``OSError`` a ``StorageUnavailable``; ``what`` is the sentence's subject and verb."""
    try:
        yield
    except OSError as error:
        raise StorageUnavailable(
            f"{what} ({error.strerror or error}); see that data_dir has room and that chatd's user "
            "may write to it, then try again"
        ) from error


def lock_file(file: IO[Any], *, within_s: float = 0.0) -> bool:
    """Lock an open file for this process alone; false when another one has it all that time.

    The kernel drops the lock when the file is closed, or its process dies.
    """
    until = time.monotonic() + within_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.05)
        else:
            return True


def new_file(path: Path) -> FileIO:
    """A new file that only its owner may read, open for writing. Raises ``FileExistsError``."""
    path.touch(mode=0o600, exist_ok=False)
    return path.open("wb", buffering=0)


def write_all(file: FileIO, data: bytes) -> None:
    """Write all of ``data``; a single call may write a part only, as when the disk fills up."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def create(path: Path, data: bytes) -> None:
    """A new private file with ``data``, on disk when this returns. Raises ``FileExistsError``."""
    with new_file(path) as file:
        write_all(file, data)
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make names last that were given or taken in ``folder``: a power failure keeps them."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
