"""The head of an answer goes out together with its body."""

from __future__ import annotations

from typing import Any

from api.drain import _OnePiece


class _Connection:
    """What was sent, call by call."""

    def __init__(self) -> None:
        self.sent: list[object] = []

    def sendall(self, data: bytes) -> None:
        self.sent.append(data)

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def sendfile(self, file: str, **_: Any) -> None:
        self.sent.append(file)

    def fileno(self) -> int:
        return 7


def test_head_and_body_are_one_call() -> None:
    connection = _Connection()
    answer = _OnePiece(connection)
    answer.sendall(b"head")
    assert connection.sent == []
    answer.sendall(b"body")
    answer.sendall(b"more")
    answer.flush()
    assert connection.sent == [b"headbody", b"more"]


def test_a_head_alone_is_sent_at_the_end() -> None:
    connection = _Connection()
    answer = _OnePiece(connection)
    answer.sendall(b"head")
    answer.flush()
    answer.flush()
    assert connection.sent == [b"head"]


def test_a_long_body_is_not_copied() -> None:
    connection = _Connection()
    answer = _OnePiece(connection)
    body = b"x" * 100_000
    answer.sendall(b"head")
    answer.sendall(body)
    assert connection.sent[0] == b"head"
    assert connection.sent[1] is body


def test_a_file_does_not_overtake_its_head() -> None:
    connection = _Connection()
    answer = _OnePiece(connection)
    answer.sendall(b"head")
    answer.sendfile("file", count=3)
    assert connection.sent == [b"head", "file"]


def test_continue_is_not_held_back() -> None:
    connection = _Connection()
    answer = _OnePiece(connection)
    answer.send(b"100")
    assert connection.sent == [b"100"]
    assert answer.fileno() == 7
