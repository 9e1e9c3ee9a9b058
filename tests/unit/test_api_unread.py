"""What is left of a refused body is read once the refusal is sent."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import pytest
from gunicorn.http.errors import NoMoreData

from chat.settings import ChatdConfig
from tests.fakes import gateway

SIZE = 3 * 2**20


@pytest.fixture
def client(tmp_path: Path) -> Any:
    """A client of a front end that takes bodies of a kilobyte."""
    return gateway(ChatdConfig(data_dir=tmp_path, body_limit=1000)).client


def send(client: Any, body: Any, path: str = "/v1/chat") -> Any:
    """POST a stream as gunicorn hands it over."""
    environ = {"wsgi.input": body, "wsgi.input_terminated": True, "CONTENT_LENGTH": str(SIZE)}
    return client.post(path, environ_overrides=environ)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param("/v1/chat", 413, id="too large"),
        pytest.param("/v1/files", 400, id="not a form"),
        pytest.param("/v1/nothing", 404, id="no such path"),
        pytest.param("/health", 405, id="no such method"),
    ],
)
def test_the_rest_is_read_after_the_answer(client: Any, path: str, status: int) -> None:
    """The server closes the response when it has sent it."""
    body = io.BytesIO(b" " * SIZE)
    response = send(client, body, path)
    while_answering = body.tell()
    response.close()

    assert response.status_code == status
    assert (while_answering, body.tell()) == (0, SIZE)


def test_it_is_read_in_large_pieces(client: Any) -> None:
    """Small ones are what makes it slow."""

    class Counted(io.BytesIO):
        reads = 0

        def read(self, size: int | None = -1) -> bytes:
            self.reads += 1
            return super().read(size)

    body = Counted(b" " * SIZE)
    send(client, body).close()

    assert body.reads == 4


@pytest.mark.parametrize("fault", [NoMoreData(b""), ConnectionResetError()], ids=["cut", "reset"])
def test_a_client_that_is_gone_is_no_trouble(
    client: Any, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    """The answer was sent; nobody waits for more."""

    class Gone:
        def read(self, _: int) -> bytes:
            raise fault

    with caplog.at_level(logging.DEBUG, logger="api.unread"):
        response = send(client, Gone())
        response.close()

    assert response.status_code == 413
    assert "cannot be read" in caplog.text


class Connection:
    """The caller's, of which a body is read; ``waits`` are the times that a read may take."""

    def __init__(self) -> None:
        self.waits: list[float | None] = []
        self.ended = False

    def settimeout(self, seconds: float | None) -> None:
        self.waits.append(seconds)

    def shutdown(self, _: int) -> None:
        self.ended = True


class Stalled:
    """A body of which nothing more comes."""

    def read(self, _: int = -1) -> bytes:
        raise TimeoutError("timed out")


@pytest.mark.parametrize("length", ["100", None], ids=["with its length", "in chunks"])
def test_a_body_that_stops_coming_is_refused_and_its_connection_ended(
    client: Any, length: str | None
) -> None:
    """Whoever sends nothing keeps no greenlet; the answer may take as long as it takes."""
    connection = Connection()
    environ = {
        "wsgi.input": Stalled(),
        "wsgi.input_terminated": True,
        "gunicorn.socket": connection,
        "CONTENT_LENGTH": length or "",
    }
    response = client.post("/v1/chat", environ_overrides=environ)
    waits = list(connection.waits)
    response.close()

    assert response.status_code == 400
    assert "nothing of it came for 30 s" in response.json["error"]["message"]
    assert (waits, connection.waits[2:], connection.ended) == ([30, None], [30], True)


def test_what_was_accepted_is_left_alone(client: Any) -> None:
    """Its body was read by the view, if at all."""
    body = io.BytesIO(b" " * SIZE)
    environ = {"wsgi.input": body, "wsgi.input_terminated": True, "CONTENT_LENGTH": str(SIZE)}
    response = client.get("/health", environ_overrides=environ)
    response.close()

    assert (response.status_code, body.tell()) == (200, 0)
