"""Faults of the disk: one that is full, and a file whose last second never reached it."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["AppendOnlyFile", "filled"]

_SAMPLE_S = 0.02
_KEPT_S = 5.0
_PIECES = (2**16, 2**10, 1)


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Inside, not one byte is free on the file system of ``disk``."""
    path = disk / "filler"
    done = threading.Event()

    def fill() -> None:
        with path.open("wb", buffering=0) as file:
            while True:
                for piece in _PIECES:
                    _write_until_full(file.fileno(), piece)
                # Whatever else is removed meanwhile makes no room.
                if done.wait(_SAMPLE_S):
                    return

    filler = threading.Thread(target=fill, name="filler")
    filler.start()
    try:
        yield
    finally:
        done.set()
        filler.join()
        path.unlink()


def _write_until_full(descriptor: int, piece: int) -> None:
    try:
        while True:
            os.write(descriptor, b"x" * piece)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


class AppendOnlyFile:
    """The newest append-only file of a Redis that runs in ``folder``, and how long it has been."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "appendonlydir"
        self.sizes: deque[tuple[float, Path, int]] = deque(maxlen=int(_KEPT_S / _SAMPLE_S))

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note its size every 20 ms inside."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(_SAMPLE_S):
                path = self._newest()
                self.sizes.append((time.monotonic(), path, path.stat().st_size))

        watcher = threading.Thread(target=watch, name="append-only file")
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    def cut_back(self, seconds: float) -> int:
        """End the file where it ended so long ago; returns how many bytes are gone."""
        path, now = self._newest(), time.monotonic()
        length = path.stat().st_size
        old = [size for at, of, size in list(self.sizes) if of == path and at <= now - seconds]
        os.truncate(path, old[-1])
        return length - old[-1]

    def _newest(self) -> Path:
        return max(self._folder.glob("*.incr.aof"), key=lambda path: path.stat().st_mtime_ns)
