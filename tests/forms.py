"""Uploads for tests of /v1/files: forms as HTTP libraries send them, and what is answered."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from api.contract import ErrorAnswer, FileAnswer
from chat.types import JSON

__all__ = [
    "BOUNDARY",
    "FILE",
    "LINES",
    "PURPOSE",
    "WHOLE",
    "Made",
    "Value",
    "error",
    "files_in",
    "form",
    "post",
    "send",
    "stored",
]

LINES = b'{"custom_id": "1"}\n{"custom_id": "2"}\n'
BOUNDARY = "b0undary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
#: A part's value: a text, a file with its name, or a file without one.
Value = str | tuple[str, bytes] | bytes


def form(*parts: tuple[str, Value], end: str = "--") -> bytes:
    """A body as RFC 7578 has it."""
    body = b""
    for name, value in parts:
        body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"'.encode()
        if isinstance(value, tuple):
            filename, data = value
            body += f'; filename="{filename}"\r\nContent-Type: application/octet-stream'.encode()
        else:
            data = value.encode() if isinstance(value, str) else value
        body += b"\r\n\r\n" + data + b"\r\n"
    return body + f"--{BOUNDARY}{end}\r\n".encode()


FILE: tuple[str, Value] = ("file", ("in.jsonl", LINES))
PURPOSE: tuple[str, Value] = ("purpose", "batch")
WHOLE = form(PURPOSE, FILE)


def post(client: Any, body: bytes = WHOLE, content_type: str = FORM, **options: Any) -> Any:
    return send(client, io.BytesIO(body), len(body), content_type=content_type, **options)


def send(
    client: Any, body: Any, length: int | None, content_type: str = FORM, **options: Any
) -> Any:
    """POST a stream as gunicorn hands it over; without a length it came in chunks."""
    environ: dict[str, Any] = {
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "CONTENT_TYPE": content_type,
    }
    if length is not None:
        environ["CONTENT_LENGTH"] = str(length)
    return client.post("/v1/files", environ_overrides=environ, **options)


def stored(client: Any, body: bytes = WHOLE, **options: Any) -> JSON:
    """The file that an upload made, checked against the contract."""
    response = post(client, body, **options)
    assert response.status_code == 200, response.text
    FileAnswer.model_validate_json(response.data)
    answer: JSON = response.json
    return answer


def error(response: Any) -> JSON:
    """The error of a response, checked against the contract."""
    ErrorAnswer.model_validate_json(response.data)
    found: JSON = response.json["error"]
    return found


def files_in(folder: Path) -> list[Path]:
    """Everything in the folder, hidden files as well."""
    return [path for path in folder.rglob("*") if path.is_file()]


class Made:
    """An upload that is made while it is read; ``largest`` is the most that was read at once."""

    def __init__(self, size: int) -> None:
        head, tail = form(("file", ("in.jsonl", b"\0")), PURPOSE).split(b"\0")
        self._head, self._tail = head, tail
        self._rest = size
        self.length = len(head) + size + len(tail)
        self.largest = 0

    def read(self, size: int) -> bytes:
        self.largest = max(self.largest, size)
        if self._head:
            head, self._head = self._head, b""
            return head
        if self._rest:
            count = min(size, self._rest)
            self._rest -= count
            return b"0123456789abcde\n" * (count // 16) + b"x" * (count % 16)
        tail, self._tail = self._tail, b""
        return tail
