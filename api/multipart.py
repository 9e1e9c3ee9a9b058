"""Forms as browsers and ``curl -F`` send them (RFC 7578), read part by part and never whole.

werkzeug's own form parser gives each file a stream and returns when all has been read. Here a part
can be refused as soon as it begins, and every fault is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from gunicorn.http.errors import ParseException
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import (
    Data,
    Epilogue,
    Event,
    Field,
    File,
    MultipartDecoder,
    NeedData,
)

from api.unread import STALL_S
from chat.errors import InvalidRequest
from chat.formats.strict_json import shown

__all__ = ["PIECE", "Part", "read_parts"]

#: Bytes that are read at a time.
PIECE = 64 * 2**10
#: Bytes that are held at most: a piece, and what the decoder could not place yet.
_MOST_HELD = 2 * PIECE
_LONGEST_TEXT = 1000
#: Bytes that may stand around a delimiter on its line: line breaks, dashes, blanks.
_LONGEST_BLANK = 64
_BREAKS = b"\r\n"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a form; ``filename`` is None for a text. What is not read of it is skipped."""

    name: str
    filename: str | None
    pieces: Iterator[bytes]

    def text(self) -> str:
        """The content of a text. Raises ``InvalidRequest``."""
        content = b""
        for piece in self.pieces:
            content += piece
            if len(content) > _LONGEST_TEXT:
                raise InvalidRequest(
                    f"{self.name} is longer than {_LONGEST_TEXT} bytes; no field of this form is",
                    param=self.name,
                )
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"{self.name} is not UTF-8", param=self.name) from error


def read_parts(stream: IO[bytes], content_type: str | None) -> Iterator[Part]:
    """The parts of the form that ``stream`` holds, in the order they come.

    Each has to be read before the next one is asked for. Raises ``InvalidRequest`` for what is no
    such form, and lets ``RequestEntityTooLarge`` of ``stream`` through.
    """
    mimetype, options = parse_options_header(content_type)
    if mimetype.lower() != "multipart/form-data":
        raise InvalidRequest(
            f"Content-Type is {shown(mimetype)}, but must be multipart/form-data, as curl -F and "
            "OpenAI's clients send it",
            param="Content-Type",
        )
    boundary = options.get("boundary", "")
    if not boundary or not boundary.isascii():
        raise InvalidRequest(
            f"Content-Type has the boundary {shown(boundary)}, but must name one in ASCII; leave "
            "Content-Type to your HTTP library",
            param="Content-Type",
        )
    return _parts(_events(stream, boundary.encode()))


def _parts(events: Iterator[Event]) -> Iterator[Part]:
    for event in events:
        if isinstance(event, Field | File):
            filename = event.filename if isinstance(event, File) else None
            # The header need not have a name, whatever the annotation says.
            yield Part(event.name or "", filename, _pieces(events))


def _pieces(events: Iterator[Event]) -> Iterator[bytes]:
    """The content of the part that has just begun."""
    for event in events:
        if isinstance(event, Data):
            if event.data:
                yield event.data
            if not event.more_data:
                return


def _events(stream: IO[bytes], boundary: bytes) -> Iterator[Event]:
    decoder = MultipartDecoder(boundary, max_form_memory_size=_MOST_HELD)
    for piece in _cut(stream, b"--" + boundary):
        try:
            decoder.receive_data(piece or None)
            while not isinstance(event := decoder.next_event(), NeedData | Epilogue):
                yield event
        except RequestEntityTooLarge as error:
            raise InvalidRequest(
                f"the form has more than {PIECE} bytes where the headers of a part or its end "
                "belong; leave it to your HTTP library"
            ) from error
        except ValueError as error:
            raise _broken("its form is malformed or ends before its last boundary") from error


def _cut(stream: IO[bytes], delimiter: bytes) -> Iterator[bytes]:
    """The bytes of ``stream`` in pieces that do not end within a delimiter's line; last, ``b""``.

    Where a piece ends between the closing dashes, werkzeug (3.1) would take the CR before the
    delimiter for content; where it ends in the blanks behind one, the whole delimiter.
    """
    held = b""
    while piece := _read(stream):
        held += piece
        end = _before_delimiter(held, delimiter)
        if end:
            yield held[:end]
        held = held[end:]
    if held:
        yield held
    yield b""


def _before_delimiter(data: bytes, delimiter: bytes) -> int:
    """How much of ``data`` comes before a delimiter's line that may end or begin at its end."""
    window = max(0, len(data) - len(delimiter) - _LONGEST_BLANK)
    text = data[window:].rstrip(_BREAKS)
    begins = 1 + max(text.rfind(b"\r"), text.rfind(b"\n"))
    line = text[begins:]
    if begins and (line.startswith(delimiter) or delimiter.startswith(line)):
        text = text[:begins].rstrip(_BREAKS)
    return window + len(text)


def _read(stream: IO[bytes]) -> bytes:
    try:
        return stream.read(PIECE)
    except ParseException as error:
        # gunicorn reads the body when it is asked for, so that a broken one shows up here.
        raise _broken(f"its chunks are malformed: {type(error).__name__}") from error
    except ClientDisconnected as error:
        raise _broken(f"it broke off, or nothing of it came for {STALL_S:g} s") from error


def _broken(why: str) -> InvalidRequest:
    return InvalidRequest(f"the body cannot be read to its end ({why}); send it whole")
