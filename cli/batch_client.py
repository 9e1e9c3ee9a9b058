"""chatd's calls for files and batches, as ``chatd batch`` uses them.

They are OpenAI's Files and Batches API (platform.openai.com/docs/api-reference/batch); what chatd
adds stands in the batch object under ``chatd``. Uploads and downloads go piece by piece, so that a
file of any size needs no memory.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

import requests
from urllib3.exceptions import HTTPError

from chat.addresses import is_loopback
from chat.types import JSON
from cli.batch_object import Batch
from cli.overview import plain

__all__ = ["BatchClient", "CallError", "Multipart", "Unavailable"]

#: Seconds one call may take; a front end whose Redis is away needs a few to say so.
_TIMEOUT_S = 15
#: Seconds without a byte: while a piece is sent, and then until the whole file has been looked at.
_UPLOAD_TIMEOUT_S = (60, 600)
#: Seconds without a byte of a download.
_DOWNLOAD_TIMEOUT_S = 60
#: Bytes that are in memory at a time.
_PIECE = 64 * 1024

_OK = 200
_TOO_MANY = 429
_SERVER_ERROR = 500


class CallError(Exception):
    """A call that came to nothing; the message is one line and says why and what to do."""


class Unavailable(CallError):
    """No answer, or one that the same call may be spared later."""


class BatchClient:
    """The calls, at the chatd at ``base``, over one connection."""

    def __init__(self, base: str) -> None:
        self.base = base.rstrip("/")
        self._session = requests.Session()
        # The environment's proxy is for the way out, not for this machine.
        self._session.trust_env = not is_loopback(urlsplit(base).hostname or "")

    def upload(self, path: Path, sent: Callable[[int], object] = lambda _: None) -> str:
        """Store the file at ``path`` as a batch's input; its id.

        ``sent`` is told how many bytes of the file have gone out. Raises ``CallError``; nothing is
        sent twice.
        """
        with path.open("rb") as file:
            body = Multipart(file, path.name, sent)
            try:
                stored = self._json(
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
        raise self._stranger()

    def create(
        self, file_id: str, *, endpoint: str, window: str, metadata: Mapping[str, str], key: str
    ) -> Batch:
        """Make a batch of an uploaded file. A second call with the same ``key`` makes no second."""
        body = {
            "input_file_id": file_id,
            "endpoint": endpoint,
            "completion_window": window,
            "metadata": dict(metadata),
        }
        return self._batch("POST", "/v1/batches", json=body, headers={"Idempotency-Key": key})

    def batch(self, batch_id: str) -> Batch:
        """The batch as it is now."""
        return self._batch("GET", f"/v1/batches/{quote(batch_id, safe='')}")

    def cancel(self, batch_id: str) -> Batch:
        """Cancel it; the batch as it is after that."""
        return self._batch("POST", f"/v1/batches/{quote(batch_id, safe='')}/cancel")

    def batches(self, *, limit: int, after: str | None) -> tuple[list[Batch], bool]:
        """The newest first, those behind ``after`` if it is given, and whether there are more."""
        query = {"limit": str(limit)} | ({} if after is None else {"after": after})
        match self._json("GET", "/v1/batches", params=query):
            case {"object": "list", "data": [*listed]} as page:
                return self._parsed(listed), bool(page.get("has_more"))
        raise self._stranger()

    def download(self, file_id: str, out: BinaryIO) -> None:
        """Write the content of a file to ``out``. Raises ``CallError`` if it does not come whole.

        What ``out`` raises goes through.
        """
        path = f"/v1/files/{quote(file_id, safe='')}/content"
        # Not compressed on the way: the length that is announced is then that of what is written.
        headers = {"Accept-Encoding": "identity"}
        with self._send(
            "GET", path, stream=True, headers=headers, timeout=_DOWNLOAD_TIMEOUT_S
        ) as response:
            if response.status_code != _OK:
                raise self._refusal(response)
            count = 0
            try:
                for piece in response.iter_content(_PIECE):
                    out.write(piece)
                    count += len(piece)
            except requests.RequestException as error:
                raise CallError(
                    f"{self.base} broke off in {file_id} after {count} bytes "
                    f"({type(error).__name__}); try again"
                ) from error

    def _batch(self, method: str, path: str, **options: Any) -> Batch:
        (batch,) = self._parsed([self._json(method, path, **options)])
        return batch

    def _parsed(self, wires: Sequence[JSON]) -> list[Batch]:
        try:
            return [Batch.from_wire(wire) for wire in wires]
        except (AttributeError, KeyError, TypeError) as error:
            raise self._stranger() from error

    def _json(self, method: str, path: str, **options: Any) -> JSON:
        """The object that a call answers with 2xx."""
        response = self._send(method, path, **options)
        if not response.ok:
            raise self._refusal(response)
        try:
            answer = response.json()
        except requests.JSONDecodeError as error:
            raise self._stranger() from error
        if not isinstance(answer, dict):
            raise self._stranger()
        return answer

    def _send(self, method: str, path: str, **options: Any) -> requests.Response:
        options = {"timeout": _TIMEOUT_S, **options}
        try:
            return self._session.request(
                method, f"{self.base}{path}", allow_redirects=False, **options
            )
        # requests lets some of urllib3's own through, such as that of a host with a label too long.
        except (requests.RequestException, HTTPError) as error:
            raise Unavailable(
                f"{self.base} does not answer ({type(error).__name__}); is `chatd up` running?"
            ) from error

    def _refusal(self, response: requests.Response) -> CallError:
        """What an answer other than 2xx means."""
        later = response.status_code == _TOO_MANY or response.status_code >= _SERVER_ERROR
        kind = Unavailable if later else CallError
        try:
            answer = response.json()
        except requests.JSONDecodeError:
            answer = None
        except requests.RequestException as error:
            return Unavailable(f"{self.base} broke off in its answer ({type(error).__name__})")
        match answer:
            case {"error": {"code": str(code), "message": str(message)}}:
                return kind(plain(f"{code}: {message}"))
        if later:
            return kind(f"{self.base} answers {response.status_code} and does not say why")
        return self._stranger()

    def _stranger(self) -> CallError:
        return CallError(f"{self.base} answers, but is not a chatd with batches; look at --url")


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
            piece = self._read(min(_PIECE, self.size - self.sent))
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
