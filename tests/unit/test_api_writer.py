"""What the front end writes on a connection for one answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.http.errors import InvalidResponseHeader, InvalidResponseHeaderName

from api.writer import OnePiece

Headers = list[tuple[str, str]]


class _Connection:
    """What was sent, call by call."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def sendall(self, data: bytes) -> None:
        self.sent.append(data)

    def sendfile(self, file: Any, **_: Any) -> None:
        self.sent.append(file)


def answer(
    headers: Headers,
    *,
    method: str = "GET",
    status: str = "200 OK",
    closes: bool = False,
    version: tuple[int, int] = (1, 1),
) -> tuple[OnePiece, list[Any]]:
    """One with these headers, and what it has sent."""
    request = SimpleNamespace(method=method, version=version, should_close=lambda: closes)
    connection = _Connection()
    made = OnePiece(request, connection, SimpleNamespace(is_ssl=False, sendfile=None))
    made.start_response(status, headers)
    return made, connection.sent


def head_of(sent: bytes) -> tuple[str, dict[str, str]]:
    """The first line and the headers that were sent."""
    first, *lines = sent.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    return first, dict(line.split(": ", 1) for line in lines)


def test_head_and_body_are_one_call() -> None:
    """And nothing comes after them."""
    made, sent = answer([("Content-Length", "4"), ("X-One", "two ")])
    assert not made.begun
    made.write(b"body")
    assert made.begun
    made.close()

    assert len(sent) == 1
    first, headers = head_of(sent[0])
    assert first == "HTTP/1.1 200 OK"
    assert (headers["Content-Length"], headers["X-One"]) == ("4", "two")
    assert (headers["Connection"], headers["Server"]) == ("keep-alive", "gunicorn")
    assert headers["Date"].endswith(" GMT")
    assert sent[0].endswith(b"\r\n\r\nbody")


def test_a_head_alone_is_sent_at_the_end() -> None:
    """That of an answer to HEAD has the length of the other."""
    made, sent = answer([("Content-Length", "4")], method="HEAD", closes=True)
    made.close()
    made.close()

    assert len(sent) == 1
    assert head_of(sent[0])[1]["Content-Length"] == "4"
    assert head_of(sent[0])[1]["Connection"] == "close"


def test_a_long_body_is_not_copied() -> None:
    """Its head goes before it."""
    body = b"x" * 100_000
    made, sent = answer([("Content-Length", "100000")])
    made.write(body)

    assert sent[0].startswith(b"HTTP/1.1 200 OK")
    assert sent[1] is body


def test_a_body_of_unknown_length_comes_in_chunks() -> None:
    """After a head that says so."""
    made, sent = answer([])
    made.write(b"one")
    made.write(b"")
    made.write(b"two")
    made.close()

    assert head_of(sent[0])[1]["Transfer-Encoding"] == "chunked"
    head, _, first = sent[0].partition(b"\r\n\r\n")
    assert head
    assert [first, *sent[1:]] == [b"3\r\none\r\n", b"3\r\ntwo\r\n", b"0\r\n\r\n"]


def test_each_piece_is_one_call() -> None:
    """The first one together with the head: nobody waits for what is there."""
    made, sent = answer([])
    for number in range(1, 4):
        made.write(b"data: x\n\n")
        assert len(sent) == number


def test_a_client_without_chunks_gets_the_pieces_as_they_are() -> None:
    """HTTP/1.0: the end of the connection is that of the answer."""
    made, sent = answer([], version=(1, 0))
    made.write(b"data: x\n\n")
    made.write(b"data: y\n\n")
    made.close()

    assert head_of(sent[0])[1]["Connection"] == "close"
    assert sent[0].endswith(b"\r\n\r\ndata: x\n\n")
    assert sent[1:] == [b"data: y\n\n"]


def test_a_long_piece_is_not_copied() -> None:
    """Its head and its frame go around it."""
    made, sent = answer([])
    made.write(b"x" * 100_000)
    made.close()

    assert b"".join(sent).endswith(b"\r\n186A0\r\n" + b"x" * 100_000 + b"\r\n0\r\n\r\n")


def test_no_more_is_written_than_was_said() -> None:
    """The next answer on the connection would begin with it."""
    made, sent = answer([("Content-Length", "2")])
    made.write(b"body")
    made.write(b"more")
    made.close()

    assert sent[0].endswith(b"\r\n\r\nbo")
    assert len(sent) == 1


def test_a_file_does_not_overtake_its_head(tmp_path: Any) -> None:
    """It is sent by the system, past what waits here."""
    (tmp_path / "file").write_bytes(b"body")
    with (tmp_path / "file").open("rb") as file:
        made, sent = answer([("Content-Length", "4")])
        made.write_file(SimpleNamespace(filelike=file))
        made.close()

        assert head_of(sent[0])[1]["Content-Length"] == "4"
        assert sent[1:] == [file]


@pytest.mark.parametrize("value", ["a\r\nX-Two: b", "a\nb", "a\x00", "a\x7f", "\u2028"])
def test_a_value_that_would_end_its_line_is_refused(value: str) -> None:
    """And is not shown: it may be a secret."""
    with pytest.raises(InvalidResponseHeader) as refused:
        answer([("Location", value)])
    assert refused.value.args == ("'Location'",)


@pytest.mark.parametrize("name", ["X-One\r\n", "X One", "", "X:One", "Ä"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    """Each time, although names are looked at once."""
    for _ in range(2):
        with pytest.raises(InvalidResponseHeaderName):
            answer([(name, "1")])


def test_what_only_the_server_may_say_is_left_out() -> None:
    """How long the connection lives, and how the body is cut."""
    mine: Headers = [
        ("Connection", "close"),
        ("transfer-encoding", "gzip"),
        ("Server", "me"),
        ("Content-Length", "0"),
    ]
    made, sent = answer(mine)
    made.close()
    _, headers = head_of(sent[0])

    assert (headers["Connection"], headers["Server"]) == ("keep-alive", "gunicorn")
    assert "transfer-encoding" not in headers
    assert sent[0].count(b"Server:") == 1
