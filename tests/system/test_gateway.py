"""Calls through a real nginx with the configuration of ``chatd gateway``, to all of chatd."""

from __future__ import annotations

import http.client
import io
import itertools
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import openai
import pytest
import requests

from bench.upstream import Upstream
from tests.batches import request_line
from tests.nginx import Nginx
from tests.stack import Stack
from tests.waiting import eventually

CHAT = {"model": "echo", "messages": [{"role": "user", "content": "hi"}]}
PIECE = b'{"custom_id": "a"}\n' * 4096


@pytest.fixture(scope="module")
def upstream():
    upstream = Upstream().start()
    yield upstream
    upstream.stop()


@pytest.fixture(scope="module")
def running(upstream, tmp_path_factory):
    stack = Stack(tmp_path_factory.mktemp("gateway"), {"ollama": upstream.url})
    yield stack.start()
    upstream.release()
    stack.stop()


@pytest.fixture(scope="module")
def nginx(running, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nginx") / "prefix"
    with Nginx(folder, running.url, running.config) as server:
        yield server


@pytest.fixture(autouse=True)
def stack(running, upstream):
    upstream.calls.clear()
    yield running
    upstream.release()


@pytest.fixture
def session():
    with requests.Session() as session:
        session.trust_env = False
        yield session


def form(length):
    """The head and the end of a form with a file of so many bytes, and its headers."""
    head = (
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
    )
    tail = b"\r\n--b--\r\n"
    size = len(head) + length + len(tail)
    headers = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": str(size)}
    return head, tail, headers


def test_a_call_waits_longer_than_nginx_would_by_itself(upstream, nginx):
    """A plain proxy gives up at its read timeout; the gateway's caller is answered after that."""
    upstream.hold()
    with ThreadPoolExecutor(2) as pool:
        plain, through = (
            pool.submit(requests.post, f"{url}/v1/chat", data=json.dumps(CHAT), timeout=120)
            for url in (nginx.control, nginx.url)
        )
        gave_up = plain.result()
        waits_on = not through.done()
        upstream.release()
        answered = through.result()

    assert (gave_up.status_code, waits_on) == (504, True)
    assert (answered.status_code, answered.json()["content"]) == (200, "echo: hi")


def test_jobs_and_long_polls_pass(upstream, nginx, session):
    """202 with a path that leads back through the gateway; the poll waits for the end."""
    upstream.hold()
    accepted = session.post(f"{nginx.url}/v1/jobs", json=CHAT)
    url = f"{nginx.url}{accepted.headers['Location']}"
    with ThreadPoolExecutor(1) as pool:
        poll = pool.submit(requests.get, url, params={"wait": 60}, timeout=120)
        eventually(upstream.calls.total, what="the call has begun")
        upstream.release()
        record = poll.result().json()

    assert accepted.status_code == 202
    assert (record["state"], record["response"]["content"]) == ("succeeded", "echo: hi")


def test_a_caller_who_hangs_up_cancels_its_job(stack, upstream, nginx):
    """The gateway's connection to chatd ends with the caller's."""
    upstream.hold()
    connection = http.client.HTTPConnection("127.0.0.1", nginx.port, timeout=60)
    with closing(connection):
        connection.request("POST", "/v1/chat", body=json.dumps(CHAT))
        eventually(upstream.calls.total, what="the call has begun")
        (lease,) = stack.redis.client.zrange("leases:ollama", 0, -1)

    assert stack.ended(lease.split()[0])["state"] == "cancelled"


def test_an_upload_passes_as_it_comes(stack, nginx):
    """30 MB: what has been sent is below data_dir before the rest is, and never on nginx' disk."""
    pieces = 30_000_000 // len(PIECE)
    head, tail, headers = form(pieces * len(PIECE))
    folder = stack.config.data_dir / "files"

    def arrived():
        return sum(path.stat().st_size for path in folder.glob(".*") if path.is_file())

    connection = http.client.HTTPConnection("127.0.0.1", nginx.port, timeout=60)
    with closing(connection):
        connection.putrequest("POST", "/v1/files")
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        connection.send(head)
        half = pieces // 2
        for piece in itertools.repeat(PIECE, half):
            connection.send(piece)
        eventually(lambda: arrived() > (half - 20) * len(PIECE), what="the first half is there")
        meanwhile = nginx.on_disk()
        for piece in itertools.repeat(PIECE, pieces - half):
            connection.send(piece)
        connection.send(tail)
        answer = connection.getresponse()
        stored = json.loads(answer.read())
    content = requests.get(f"{nginx.url}/v1/files/{stored['id']}/content", timeout=60)

    assert (answer.status, stored["bytes"]) == (200, pieces * len(PIECE))
    assert meanwhile == []
    assert content.content == PIECE * pieces


def test_a_plain_proxy_writes_uploads_to_its_disk(nginx):
    """So the test before this one looks where they would be."""
    head, _, headers = form(30 * len(PIECE))
    address = ("127.0.0.1", int(nginx.control.rpartition(":")[2]))
    with socket.create_connection(address, timeout=60) as connection:
        lines = [
            "POST /v1/files HTTP/1.1",
            "Host: localhost",
            *map(": ".join, headers.items()),
            "",
            "",
        ]
        connection.sendall("\r\n".join(lines).encode() + head + PIECE * 20)

        assert eventually(nginx.on_disk, what="a body on nginx' disk")


@pytest.mark.parametrize("path", ["/v1/chat", "/v1/jobs"])
def test_too_large_a_body_is_refused_by_chatd(stack, nginx, session, path):
    """In its words; clients that send all of it first hear them, and their connection goes on."""
    body = b'{"model": "echo", "messages": "' + b"x" * stack.config.body_limit
    replies = [session.post(f"{nginx.url}{path}", data=body) for _ in range(2)]
    error = replies[0].json()["error"]
    answered = session.post(f"{nginx.url}/v1/chat", json=CHAT)

    assert (replies[0].status_code, error["code"]) == (413, "too_large")
    assert "(body_limit)" in error["message"]
    assert (replies[1].status_code, answered.status_code) == (413, 200)


def test_a_refused_upload_is_told_and_the_next_call_is_answered(nginx, session):
    """Before all of it has been sent: it is no form."""
    refused = session.post(f"{nginx.url}/v1/files", data=b"x" * 20_000_000)
    answered = session.post(f"{nginx.url}/v1/chat", json=CHAT)

    assert (refused.status_code, answered.status_code) == (400, 200)
    assert refused.json()["error"]["code"] == "invalid_request"


def test_a_batch_passes_from_upload_to_results(nginx):
    """With OpenAI's client."""
    text = "".join(f"{request_line(f'q{number}', 'echo')}\n" for number in range(20))
    with openai.OpenAI(base_url=f"{nginx.url}/v1", api_key="none", max_retries=0) as client:
        file = client.files.create(file=("in.jsonl", io.BytesIO(text.encode())), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )

        def over():
            found = client.batches.retrieve(batch.id)
            return found if found.status == "completed" else None

        found = eventually(over, within_s=60, what="the batch is completed")
        results = client.files.content(found.output_file_id).text

    assert found.request_counts.failed == 0
    assert len(results.splitlines()) == 20


def test_a_front_end_that_is_restarted_is_found_again(stack, nginx, session):
    """Its callers are told meanwhile in our form, and nginx forgets it at once."""
    stack.api.stop()
    away = session.post(f"{nginx.url}/v1/chat", json=CHAT)
    stack.api.start()
    eventually(stack.ready, what="the front end is ready")
    back = session.post(f"{nginx.url}/v1/chat", json=CHAT)

    assert (away.status_code, away.json()["error"]["code"]) == (502, "bad_gateway")
    assert back.status_code == 200
