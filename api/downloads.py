"""Content of files on its way out: in pieces, whole or the part that is asked for."""

from __future__ import annotations

from typing import BinaryIO
from urllib.parse import quote

from flask import Response, request
from werkzeug.exceptions import HTTPException, PreconditionFailed
from werkzeug.http import dump_options_header
from werkzeug.wsgi import FileWrapper

from api.multipart import PIECE
from api.threads import in_thread

__all__ = ["attachment", "download"]


def download(content: BinaryIO, size: int, etag: str, content_type: str) -> Response:
    """A response with the ``size`` bytes of ``content``, or the range of them that is asked for.

    ``etag`` has to change with the content: by it a download that broke off can go on.
    """
    response = Response(_Pieces(content, PIECE), content_type=content_type)
    response.content_length = size
    response.set_etag(etag)
    try:
        response.make_conditional(request.environ, accept_ranges=True, complete_length=size)
        if response.status_code == PreconditionFailed.code:
            raise PreconditionFailed  # It has an error's body, not the content's.
    except HTTPException:
        response.close()
        raise
    return response


def attachment(filename: str) -> str:
    """``Content-Disposition`` for a file of that name (RFC 6266; RFC 5987 beyond ASCII)."""
    if filename.isascii():
        return dump_options_header("attachment", {"filename": filename})
    return dump_options_header("attachment", {"filename*": f"UTF-8''{quote(filename, safe='')}"})


class _Pieces(FileWrapper):
    """What is in a file, read where it holds nobody up."""

    def __next__(self) -> bytes:
        piece = in_thread(self.file.read, self.buffer_size)
        if not piece:
            raise StopIteration
        return piece
