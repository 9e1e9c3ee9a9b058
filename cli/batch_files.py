"""Files on their way to chatd and from it, as the commands of ``chatd batch`` need them."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

from cli.batch_client import BatchClient

__all__ = ["upload", "whole"]

#: Bytes from which an upload takes long enough to be shown.
_LARGE = 8 * 1024 * 1024


def upload(client: BatchClient, file: Path) -> str:
    """Upload ``file``, with a bar if that takes a while and somebody looks; its id.

    Raises ``CallError``.
    """
    size = file.stat().st_size
    if size < _LARGE or not sys.stderr.isatty():
        return client.upload(file)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("upload", total=size)
        return client.upload(file, lambda sent: shown.update(task, completed=sent))


@contextmanager
def whole(path: Path | None) -> Iterator[BinaryIO]:
    """Standard output, or a file that appears when it is whole and not before."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    # A link keeps leading to its file.
    target = path.resolve()
    if target.exists() and not target.is_file():
        # A device or a pipe is written to and not replaced.
        with target.open("wb") as out:
            yield out
        return
    # A name of its own: a second command with the same target, or a file of that name, is safe.
    part = target.with_name(f".{uuid.uuid4().hex}.part")
    with part.open("xb") as out:
        try:
            if target.exists():
                part.chmod(target.stat().st_mode & 0o777)
            yield out
            out.close()
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
