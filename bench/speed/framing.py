"""HTTP/1.1 messages cut out of what a socket gives, for a load generator and an upstream."""

from __future__ import annotations

__all__ = ["message"]

_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"
_CHUNKED = b"\r\ntransfer-encoding: chunked"


def message(buffer: bytes) -> tuple[bytes, bytes, bytes] | None:
    """The first message: its head in small letters, its body, and what comes after it.

    None as long as it is not whole. A message that names no length has no body.
    """
    at = buffer.find(_END)
    if at < 0:
        return None
    head = buffer[:at].lower()
    begin = at + len(_END)
    found = head.find(_LENGTH)
    if found < 0:
        if _CHUNKED in head:
            return _chunked(head, buffer, begin)
        return head, b"", buffer[begin:]
    end = begin + int(head[found + len(_LENGTH) :].partition(b"\r\n")[0])
    return (head, buffer[begin:end], buffer[end:]) if len(buffer) >= end else None


def _chunked(head: bytes, buffer: bytes, at: int) -> tuple[bytes, bytes, bytes] | None:
    """The same for a body in chunks, without trailers: nobody here sends any."""
    body = bytearray()
    while True:
        line = buffer.find(b"\r\n", at)
        if line < 0:
            return None
        size = int(buffer[at:line].partition(b";")[0], 16)
        end = line + 2 + size
        if len(buffer) < end + 2:
            return None
        if not size:
            return head, bytes(body), buffer[end + 2 :]
        body += buffer[line + 2 : end]
        at = end + 2
