"""Files on their way to chatd and from it, piece by piece: one of any size needs no memory."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

from cli.http import PIECE, CallError, HttpClient, Unavailable

__all__ = ["FileClient", "Multipart", "upload", "whole"]

#: Bytes from which an upload takes long enough to be shown.
_LARGE = 8 * 1024 * 1024
#: Seconds without a byte: while a piece is sent, and then until the whole file has been looked at.
_UPLOAD_TIMEOUT_S = (60, 600)


class FileClient(HttpClient):
    """A client whose calls begin with an uploaded file."""

    def upload(self, path: Path, sent: Callable[[int], object] = lambda _: None) -> str:
        """Store the file at ``path`` as the input of a batch or an evaluation; its id.

        ``sent`` is told how many bytes of the file have gone out. Raises ``CallError``; nothing is
        sent twice.
        """
        with path.open("rb") as file:
            body = Multipart(file, path.name, sent)
            try:
                stored = self.call(
                    "POST",
                    "/v1/files",
                    data=body,
                    headers={"Content-Type": body.content_type},
                    timeout=_UPLOAD_TIMEOUT_S,
                )
            except Unavailable as error:
                progress = f"{body.sent} of {body.size} bytes were sent, nothing is queued"
                raise Unavailable(f"{error} ({path.name}: {progress})") from error
        match stored:
            case {"object": "file", "id": str(file_id)}:
                return file_id
        raise self.stranger()


class Multipart:
    """The body of ``POST /v1/files``: multipart/form-data that is read from disk as it is sent.

    requests takes the Content-Length from ``len`` and sends what the iteration gives.
    """

    def __init__(self, file: BinaryIO, name: str, told: Callable[[int], object]) -> None:
        self._file = file
        self._told = told
        self.size = os.fstat(file.fileno()).st_size
        self.sent = 0
        boundary = f"chatd-{uuid.uuid4().hex}"
        self.content_type = f"multipart/form-data; boundary={boundary}"
        # A quote or a line break in a name is escaped as the HTML standard has it for forms.
        for char, escaped in (('"', "%22"), ("\r", "%0D"), ("\n", "%0A")):
            name = name.replace(char, escaped)
        self._head = (
            f"--{boundary}\r\n"
            'Content-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            f"--{boundary}\r\n"
            f'Content-Disposition: form-data; name="file"; filename="{name}"\r\n'
            "Content-Type: application/jsonl\r\n\r\n"
        ).encode("utf-8", "replace")
        self._tail = f"\r\n--{boundary}--\r\n".encode()

    def __len__(self) -> int:
        return len(self._head) + self.size + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        while self.sent < self.size:
            piece = self._read(min(PIECE, self.size - self.sent))
            yield piece
            self.sent += len(piece)
            self._told(self.sent)
        yield self._tail

    def _read(self, count: int) -> bytes:
        """The next bytes, at least one. The length has been announced: there is no ending early."""
        try:
            piece = self._file.read(count)
        except OSError as error:
            raise CallError(f"{self._file.name}: cannot be read ({error.strerror})") from error
        if not piece:
            raise CallError(f"{self._file.name}: became shorter while it was sent; send it again")
        return piece


def upload(client: FileClient, file: Path) -> str:
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
