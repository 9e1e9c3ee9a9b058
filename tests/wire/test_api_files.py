"""/v1/files over real connections, at a front end of two gunicorn processes, without any Redis."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import requests

from chat.files import FileStore
from cli.redis_server import free_port
from tests.servers import Child, python
from tests.waiting import eventually

BOUNDARY = "b0undary"
HEAD = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
).encode()
TAIL = f"\r\n--{BOUNDARY}--\r\n".encode()
LINE = b'{"custom_id": "1"}\n'
LIMIT = 4 * 2**20


class FrontEnd:
    """A front end of its own process, and what is below its data_dir."""

    def __init__(self, folder: Path, processes: int = 2) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.files = folder / "data" / "files"
        config = folder / "lakehouse.toml"
        config.write_text(
            f'[chatd]\nbind = "127.0.0.1:{self.port}"\ndata_dir = "{folder / "data"}"\n'
            f"api_processes = {processes}\nfile_limit = {LIMIT}\nbody_limit = 1000\n"
        )
        self.child = Child(
            python("-m", "cli", "api"), folder / "api.log", {"LAKEHOUSE_CONFIG": str(config)}
        )
        self.http = requests.Session()
        self.http.trust_env = False

    def start(self) -> FrontEnd:
        self.child.start()
        eventually(self.answers, what=f"an answer; {self.child.output()[-2000:]}")
        return self

    def stop(self) -> None:
        self.http.close()
        self.child.stop()

    def answers(self) -> bool:
        try:
            return self.http.get(f"{self.url}/health", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    def upload(self, content: bytes, name: str = "in.jsonl", key: str = "") -> requests.Response:
        """POST /v1/files as any HTTP library does it."""
        with requests.Session() as session:
            session.trust_env = False
            return session.post(
                f"{self.url}/v1/files",
                data={"purpose": "batch"},
                files={"file": (name, content)},
                headers={"Idempotency-Key": key} if key else None,
                timeout=60,
            )

    def connect(self, length: int | None) -> socket.socket:
        """A connection on which an upload has begun: its headers, and the head of its form."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        connection.sendall(
            f"POST /v1/files HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n"
            f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n".encode()
        )
        connection.sendall(HEAD if length is not None else chunk(HEAD))
        return connection

    def on_disk(self) -> set[str]:
        """The names of all files, hidden ones as well; keys left out."""
        return {path.name for path in self.files.glob("*") if path.is_file()}

    def half_written(self) -> bool:
        """Whether an upload is being written, with some content in it."""
        return any(path.stat().st_size for path in self.files.glob(".*"))


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of what comes back."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, response.read()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontEnd]:
    front = FrontEnd(tmp_path_factory.mktemp("front")).start()
    yield front
    front.stop()


@pytest.fixture
def front(running: FrontEnd) -> FrontEnd:
    """A front end without files."""
    store = FileStore(running.files)
    for stored in store.page()[0]:
        store.delete(stored.id)
    return running


def test_a_file_is_uploaded_listed_read_and_deleted(front: FrontEnd) -> None:
    """The five calls of OpenAI's client.files, which send just this."""
    content = LINE * 100_000
    made = front.upload(content)
    assert made.status_code == 200, made.text
    file_id = made.json()["id"]
    page = front.http.get(f"{front.url}/v1/files", params={"purpose": "batch"}, timeout=60)
    shown = front.http.get(f"{front.url}/v1/files/{file_id}", timeout=60)
    read = front.http.get(
        f"{front.url}/v1/files/{file_id}/content",
        headers={"Accept": "application/binary"},
        timeout=60,
    )
    deleted = front.http.delete(f"{front.url}/v1/files/{file_id}", timeout=60)
    gone = front.http.get(f"{front.url}/v1/files/{file_id}", timeout=60)

    assert page.json()["data"] == [made.json()] == [shown.json()]
    assert (read.status_code, read.content == content) == (200, True)
    assert read.headers["Content-Length"] == str(len(content))
    assert deleted.json() == {"id": file_id, "object": "file", "deleted": True}
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "file_not_found")
    assert front.on_disk() == set()


def test_what_is_not_there_is_no_error_of_the_log(front: FrontEnd) -> None:
    """It is looked for in a thread, whose exceptions gevent would log by itself."""
    an_id = "0" * 26
    paths = [f"files/file-{an_id}", f"batches/batch_{an_id}", f"evaluations/eval_{an_id}/report"]
    statuses = [front.http.get(f"{front.url}/v1/{path}", timeout=60).status_code for path in paths]

    assert statuses == [404, 404, 404]
    assert "Traceback" not in front.child.output()


def test_a_range_of_a_file_is_sent(front: FrontEnd) -> None:
    """Across the pieces it is read in."""
    content = os.urandom(300_000)
    file_id = front.upload(content).json()["id"]
    read = front.http.get(
        f"{front.url}/v1/files/{file_id}/content",
        headers={"Range": "bytes=65000-200000"},
        timeout=60,
    )

    assert (read.status_code, read.content) == (206, content[65000:200001])


def test_an_upload_in_chunks_is_taken(front: FrontEnd) -> None:
    """From whoever does not know its length beforehand."""
    with closing(front.connect(None)) as connection:
        for _ in range(5):
            connection.sendall(chunk(LINE * 5000))
        connection.sendall(chunk(TAIL) + b"0\r\n\r\n")
        status, body = answer(connection)
    (stored,) = FileStore(front.files).page()[0]

    assert status == 200, body
    assert FileStore(front.files).path(stored.id).read_bytes() == LINE * 25_000


def test_malformed_chunks_are_400(front: FrontEnd) -> None:
    """They are found while the form is read."""
    with closing(front.connect(None)) as connection:
        connection.sendall(b"what?\r\n")
        status, body = answer(connection)

    assert (status, b"its chunks are malformed" in body) == (400, True)
    eventually(lambda: front.on_disk() == set())


@pytest.mark.parametrize("length", [100_000, None], ids=["with its length", "in chunks"])
def test_an_upload_whose_client_is_gone_leaves_nothing(front: FrontEnd, length: int | None) -> None:
    """Neither a file nor a part of one."""
    frame: Callable[[bytes], bytes] = chunk if length is None else bytes
    with closing(front.connect(length)) as connection:
        connection.sendall(frame(LINE * 100))
        eventually(lambda: any(front.files.glob(".*")), what="it is being written")
    eventually(lambda: front.on_disk() == set())

    assert FileStore(front.files).page() == ([], False)


def test_others_are_answered_while_an_upload_takes_its_time(front: FrontEnd) -> None:
    """It is not seen before it is complete."""
    content = LINE * 10_000
    with closing(front.connect(len(HEAD) + 2 * len(content) + len(TAIL))) as connection:
        connection.sendall(content)
        eventually(front.half_written, what="it is being written")
        before = front.http.get(f"{front.url}/v1/files", timeout=60).json()
        connection.sendall(content + TAIL)
        status, body = answer(connection)
    after = front.http.get(f"{front.url}/v1/files", timeout=60).json()

    assert (before["data"], status) == ([], 200), body
    assert [item["bytes"] for item in after["data"]] == [2 * len(content)]


@pytest.mark.parametrize("size", [LIMIT + 1, 8 * LIMIT], ids=["one byte more", "much more"])
def test_whoever_sends_too_much_is_told_so(front: FrontEnd, size: int) -> None:
    """Clients send all of it before they look at the answer, which has to be there then."""
    reply = front.upload(b"x" * size)

    assert reply.status_code == 413, reply.text
    assert f"larger than {LIMIT} bytes (file_limit)" in reply.json()["error"]["message"]
    assert front.on_disk() == set()


def test_whoever_sends_too_much_in_chunks_is_told_so(front: FrontEnd) -> None:
    """Nobody knows beforehand how much it will be."""
    with closing(front.connect(None)) as connection:
        for _ in range(3):
            connection.sendall(chunk(b"x" * (LIMIT // 2)))
        connection.sendall(chunk(TAIL) + b"0\r\n\r\n")
        status, body = answer(connection)

    assert (status, b"file_limit" in body) == (413, True)
    assert front.on_disk() == set()


def test_the_limit_of_other_bodies_is_not_that_of_files(front: FrontEnd) -> None:
    """A kilobyte here."""
    reply = front.http.post(f"{front.url}/v1/jobs", data=b" " * 1001, timeout=60)

    assert (reply.status_code, "body_limit" in reply.text) == (413, True)
    assert front.upload(b"x" * LIMIT).status_code == 200


def test_of_equal_uploads_with_one_key_one_file_is_made(front: FrontEnd) -> None:
    """Whichever process gets them, and whenever."""
    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(lambda _: front.upload(LINE * 50_000, key="k"), range(12)))
    other = front.upload(LINE, key="k")
    bodies = [reply.json() for reply in replies]

    assert [reply.status_code for reply in replies] == [200] * 12
    assert bodies == [bodies[0]] * 12
    assert (other.status_code, bodies[0]["id"] in other.text) == (422, True)
    assert [stored.id for stored in FileStore(front.files).page()[0]] == [bodies[0]["id"]]


def test_a_killed_front_end_leaves_nothing_that_can_be_seen(tmp_path: Path) -> None:
    """What it had written is hidden, and swept a day later."""
    front = FrontEnd(tmp_path, processes=1).start()
    store = FileStore(front.files)
    try:
        kept = front.upload(LINE).json()["id"]
        with closing(front.connect(10**6)) as connection:
            connection.sendall(LINE * 10_000)
            eventually(front.half_written, what="it is being written")
            # The whole group: the master would only start another worker.
            children = Path(f"/proc/{front.child.pid}/task/{front.child.pid}/children").read_text()
            for pid in (front.child.pid, *map(int, children.split())):
                os.kill(pid, signal.SIGKILL)
            front.child.wait()
    finally:
        front.stop()
    left = front.on_disk()
    store.sweep(time.time() + 90_000)

    assert [stored.id for stored in store.page()[0]] == [kept]
    assert front.on_disk() == {f"{kept}.json", f"{kept}.jsonl"}
    assert len(left - front.on_disk()) == 1
