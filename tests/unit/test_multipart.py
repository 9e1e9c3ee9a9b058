"""The form reader, wherever the pieces of a body begin and end."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import IO, cast

import pytest

from api.multipart import PIECE, read_parts
from tests.forms import BOUNDARY, FORM, PURPOSE, form

CONTENTS = [
    pytest.param(b"a", id="a byte"),
    pytest.param(b"", id="nothing"),
    pytest.param(b"a\r\n", id="a line"),
    pytest.param(b"\r\n\r\n", id="line ends"),
    pytest.param(b"a\r\n--" + BOUNDARY.encode()[:-1] + b"-", id="almost a boundary"),
]


class Pieces:
    """A body that comes in these pieces."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = list(pieces)

    def read(self, _: int = -1) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


def read(*pieces: bytes) -> list[tuple[str, bytes]]:
    """The parts by their names."""
    parts = read_parts(cast("IO[bytes]", Pieces(pieces)), FORM)
    return [(part.name, b"".join(part.pieces)) for part in parts]


@pytest.mark.parametrize("blanks", [b"", b" \t "], ids=["bare boundaries", "blanks behind them"])
@pytest.mark.parametrize("content", CONTENTS)
def test_the_content_is_the_same_however_the_body_is_cut(content: bytes, blanks: bytes) -> None:
    """In two at every place, and into single bytes; RFC 2046 allows blanks behind a boundary."""
    body = form(PURPOSE, ("file", ("f", content)))
    body = body.replace(
        b"\r\n--%b\r\n" % BOUNDARY.encode(), b"\r\n--%b%b\r\n" % (BOUNDARY.encode(), blanks)
    )
    in_two = [read(body[:place], body[place:]) for place in range(1, len(body))]
    whole = [("purpose", b"batch"), ("file", content)]

    assert in_two == [whole] * (len(body) - 1)
    assert read(*(body[place : place + 1] for place in range(len(body)))) == whole


@pytest.mark.parametrize("place", range(len(BOUNDARY) + 8))
def test_a_large_file_may_end_at_the_edge_of_a_piece(place: int) -> None:
    """The edge is then before, within or behind the last boundary."""
    head = form(PURPOSE, ("file", ("f", b""))).index(b"\r\n\r\n\r\n--") + 4
    content = b"x" * (2 * PIECE - head - place)
    body = form(PURPOSE, ("file", ("f", content)))

    parts = read_parts(io.BytesIO(body), FORM)
    lengths = [(part.name, sum(map(len, part.pieces))) for part in parts]

    assert lengths == [("purpose", 5), ("file", len(content))]
