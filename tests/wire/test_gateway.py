"""nginx with the configuration of ``chatd gateway``, in front of a scripted chatd."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress

import pytest
import requests

from chat.config import ChatdConfig
from cli.redis_server import free_port
from tests.nginx import Nginx
from tests.upstream import CERTIFICATE, Answer, End, ScriptedUpstream
from tests.waiting import eventually

CONFIG = ChatdConfig(file_limit=2 * 2**20, body_limit=2**20)
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def chatd():
    with ScriptedUpstream() as server:
        server.always(Answer.json({"ok": True}))
        yield server


@pytest.fixture
def nginx(chatd, tmp_path):
    with Nginx(tmp_path / "nginx", chatd.url, CONFIG) as server:
        yield server


@pytest.fixture
def http_session():
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.fixture
def post(nginx, http_session):
    """A chat through the gateway."""

    def post(headers=None, path="/v1/chat", body=None):
        return http_session.post(f"{nginx.url}{path}", json=body or CHAT, headers=headers)

    return post


def raw(nginx: Nginx, target: str) -> tuple[int, bytes]:
    """The answer to a path as it stands: HTTP libraries tidy it up."""
    connection = http.client.HTTPConnection("127.0.0.1", nginx.port, timeout=60)
    with closing(connection):
        connection.putrequest("GET", target, skip_host=False)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()


def answer_once(listener: socket.socket) -> bytes:
    """What the first caller sends; it is answered."""
    connection, _ = listener.accept()
    with connection:
        heard = connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    return heard


def test_nginx_takes_the_configuration_without_a_warning(nginx):
    """`nginx -T`: as it stands, within the settings of a distribution."""
    tested = nginx.tested()

    assert tested.returncode == 0, tested.stderr
    assert "warn" not in tested.stderr
    assert "proxy_buffering off;" in tested.stdout


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat"),
        ("GET", "/v1/chat/providers"),
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/jobs/job_1?wait=20"),
        ("POST", "/v1/batches"),
        ("DELETE", "/v1/files/file-1"),
        ("GET", "/health"),
        ("GET", "/openapi.json"),
    ],
)
def test_each_call_for_callers_is_passed_on(chatd, nginx, http_session, method, path):
    """With its query, over HTTP/1.1."""
    reply = http_session.request(method, f"{nginx.url}{path}")
    (request,) = chatd.requests

    assert reply.json() == {"ok": True}
    assert (request.method, request.path) == (method, path)


@pytest.mark.parametrize(
    "target",
    [
        "/metrics",
        "/ready",
        "/",
        "/v1",
        "/v2/chat",
        "//v1/chat",
        "//metrics",
        "/v1/../metrics",
        "/v1/%2e%2e/metrics",
        "/v1/..%2fmetrics",
        "/health/../metrics",
        "/openapi.json/../ready",
        "/metrics%3f",
    ],
)
def test_nothing_else_is(chatd, nginx, target):
    """However it is spelled: chatd is not even asked."""
    status, body = raw(nginx, target)

    assert (status, json.loads(body)["error"]["code"]) == (404, "not_found")
    assert chatd.requests == []


def test_what_a_caller_says_arrives(chatd, post):
    """Headers as they are, but for those that say who calls."""
    said = {
        "Host": "box.example",
        "Authorization": "Bearer chatd-abc",
        "Idempotency-Key": "eval-7",
        "Prefer": "wait=5",
        "X-Request-Id": "my-id.1",
        "X-Forwarded-For": "10.9.9.9",
        "X-Real-IP": "10.9.9.9",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "other.example",
        "X-Forwarded-Ssl": "on",
        "X-Forwarded-Protocol": "ssl",
        "Forwarded": "for=10.9.9.9",
    }
    post(said)
    (request,) = chatd.requests
    told = {name: request.headers.get(name.lower()) for name in said}

    assert told == {
        **said,
        "X-Forwarded-Host": None,
        "X-Forwarded-Ssl": None,
        "X-Forwarded-Protocol": None,
        "Forwarded": None,
        "X-Forwarded-For": "127.0.0.1",
        "X-Real-IP": "127.0.0.1",
        "X-Forwarded-Proto": "http",
    }
    assert request.json() == CHAT


@pytest.mark.parametrize("given", [None, "with blanks", "x" * 129, 'a"b'])
def test_an_id_that_chatd_would_not_take_is_replaced(chatd, post, given):
    """So that nginx and chatd call it the same."""
    post({} if given is None else {"X-Request-Id": given})
    (request,) = chatd.requests

    assert request.headers["x-request-id"].removeprefix("req_").isalnum()
    assert len(request.headers["x-request-id"]) == 36


def test_connections_to_chatd_are_kept(chatd, post):
    """One after another over the same, while there are calls."""
    for _ in range(5):
        post()

    # One that was idle for a second is given up, and this machine may be slow.
    assert len(chatd.connections) < len(chatd.requests) == 5
    assert all("connection" not in request.headers for request in chatd.requests)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Answer.raw(End.RESET), id="reset"),
        pytest.param(Answer.raw(End.CLOSE), id="closed"),
        pytest.param(Answer.raw(b"HTTP/1.1 2", End.CLOSE), id="half a head"),
    ],
)
def test_a_call_without_an_answer_is_sent_once(chatd, post, fault):
    """On a new connection and on one that was kept; the caller hears it in our form."""
    post()
    chatd.then(fault, fault)
    replies = [post({"X-Request-Id": "mine"}), post({"Idempotency-Key": "k"})]
    errors = [reply.json()["error"] for reply in replies]

    assert len(chatd.requests) == 3
    for reply, error in zip(replies, errors, strict=True):
        assert reply.status_code == 502
        assert reply.headers["Content-Type"] == "application/json"
        assert (error["code"], error["retryable"], error["billed"]) == (
            "bad_gateway",
            True,
            "maybe",
        )
    assert replies[0].headers["X-Request-Id"] == "mine"
    assert replies[0].headers["X-Should-Retry"] == "false"
    # With a key it may be sent again: it joins its job.
    assert "X-Should-Retry" not in replies[1].headers


def test_chatd_is_found_at_any_address_of_its_name(chatd, tmp_path, http_session):
    """Such as localhost, which often has two, while chatd listens on one of them."""
    nginx = Nginx(tmp_path / "nginx", chatd.url, CONFIG)
    file = nginx.folder / "chatd.conf"
    server = f"server 127.0.0.1:{chatd.port} max_fails=0;"
    other = server.replace(str(chatd.port), str(free_port()))
    file.write_text(file.read_text("utf-8").replace(server, f"{other} {server}"), "utf-8")
    with nginx:
        replies = [http_session.post(f"{nginx.url}/v1/chat", json=CHAT) for _ in range(10)]

    assert {reply.status_code for reply in replies} == {200}
    assert len(chatd.requests) == 10


@pytest.mark.parametrize("path", ["/v1/chat", "/v1/files"])
def test_a_caller_can_go_on_after_an_error(tmp_path, path):
    """On the same connection, or it is told that there is another one to open."""
    with ScriptedUpstream() as chatd:
        url = chatd.url
    with Nginx(tmp_path / "nginx", url, CONFIG) as nginx:
        connection = http.client.HTTPConnection("127.0.0.1", nginx.port, timeout=60)
        with closing(connection):
            statuses = []
            for _ in range(20):
                connection.putrequest("POST", path)
                connection.putheader("Content-Length", "4")
                connection.endheaders()
                # Refused at once, before the body is there.
                with suppress(ConnectionError):
                    connection.send(b"body")
                answer = connection.getresponse()
                answer.read()
                statuses.append(answer.status)

    assert set(statuses) == {502}


def test_chatd_may_go_and_come_back(tmp_path, http_session):
    """A gateway that runs on needs no word of it, and remembers nothing."""
    with ScriptedUpstream() as chatd:
        url = chatd.url
    with Nginx(tmp_path / "nginx", url, CONFIG) as nginx:
        replies = [http_session.post(f"{nginx.url}/v1/chat", json=CHAT) for _ in range(20)]
        with (
            socket.create_server(("127.0.0.1", chatd.port)) as listener,
            ThreadPoolExecutor(1) as pool,
        ):
            heard = pool.submit(answer_once, listener)
            back = http_session.get(f"{nginx.url}/health")

    assert {(reply.status_code, reply.json()["error"]["code"]) for reply in replies} == {
        (502, "bad_gateway")
    }
    assert (back.status_code, back.text) == (200, "ok")
    assert heard.result().startswith(b"GET /health HTTP/1.1\r\n")


@pytest.mark.parametrize("status", [400, 404, 413, 429, 502, 503, 504])
def test_errors_of_chatd_are_its_own(chatd, post, status):
    """Status, headers and body, also where the gateway has an error of that status."""
    chatd.always(Answer.json({"error": {"code": "its own"}}, status, {"retry-after": "7"}))
    reply = post()

    assert (reply.status_code, reply.json()) == (status, {"error": {"code": "its own"}})
    assert reply.headers["Retry-After"] == "7"


def test_an_answer_in_pieces_comes_in_pieces(chatd, nginx):
    """Each as soon as it is there, however small: what streaming needs."""
    goes_on = [threading.Event(), threading.Event()]
    chatd.always(Answer.chunked([b"one", goes_on[0], b"two", goes_on[1], b"three"]))
    connection = http.client.HTTPConnection("127.0.0.1", nginx.port, timeout=60)
    with closing(connection):
        connection.request("POST", "/v1/chat", body=json.dumps(CHAT))
        answer = connection.getresponse()
        pieces = [answer.read1(100)]
        for event in goes_on:
            event.set()
            pieces.append(answer.read1(100))

    assert pieces == [b"one", b"two", b"three"]


def test_an_answer_that_nobody_reads_stays_at_chatd(chatd, nginx):
    """A plain proxy reads it at once and writes it to its disk; the gateway lets chatd wait."""
    chatd.always(Answer.of(bytes(60_000_000)))
    with ExitStack() as kept:
        for port in (nginx.port, int(nginx.control.rpartition(":")[2])):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            kept.callback(connection.close)
            connection.request("GET", "/v1/files/file-1/content")
        eventually(lambda: sum(nginx.on_disk()) > 50_000_000, what="a copy on nginx' disk")

        assert len(nginx.on_disk()) == 1


def test_a_caller_who_hangs_up_is_hung_up_on(chatd, nginx):
    """In the middle of the wait; chatd sees its own connection end."""
    chatd.always(Answer.json({}, after=chatd.closing))
    connection = http.client.HTTPConnection("127.0.0.1", nginx.port, timeout=60)
    with closing(connection):
        connection.request("POST", "/v1/chat", body=json.dumps(CHAT))
        (request,) = chatd.wait_for(1)

    chatd.wait_for_hang_up(request)


@pytest.mark.parametrize(
    ("path", "limit"),
    [("/v1/files", CONFIG.file_limit), ("/v1/chat", CONFIG.body_limit)],
)
def test_what_chatd_never_takes_is_refused_at_the_door(chatd, nginx, path, limit):
    """By its length, before anything is sent, and in our form."""
    connection = http.client.HTTPConnection("127.0.0.1", nginx.port, timeout=60)
    with closing(connection):
        connection.putrequest("POST", path)
        connection.putheader("Content-Length", str(limit + 2**20 + 1))
        connection.endheaders()
        answer = connection.getresponse()
        error = json.loads(answer.read())["error"]

    assert (answer.status, error["code"]) == (413, "too_large")
    assert f"{limit} " in error["message"]
    assert answer.getheader("X-Should-Retry") == "false"
    assert chatd.requests == []


def test_it_serves_tls(chatd, tmp_path, http_session):
    """With a certificate, and says so to chatd."""
    tls = str(CERTIFICATE), str(CERTIFICATE.with_name("key.pem"))
    with Nginx(tmp_path / "nginx", chatd.url, CONFIG, tls=tls) as nginx:
        reply = http_session.get(f"{nginx.url}/v1/models", verify=str(CERTIFICATE))
    (request,) = chatd.requests

    assert reply.status_code == 200
    assert request.headers["x-forwarded-proto"] == "https"
