"""Requests and files that nobody sends by mistake, at a real front end with a real keeper.

Each is refused with an error that names the fault. Nothing of it is queued or called, and no
process ends, hangs or grows.
"""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack, closing
from email.message import Message
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

from api.openapi import OPERATIONS
from bench.processes import family
from bench.upstream import Upstream
from chat.formats.strict_json import MAX_VALUES
from tests.batches import request_line
from tests.stack import Stack
from tests.waiting import eventually

MIB = 2**20
BODY_LIMIT = 10 * MIB
#: What the processes may have held at any time; they begin with about 70.
MOST_MIB = 400
CHAT = {"model": "echo", "messages": [{"role": "user", "content": "q"}]}
OVER = {"completed", "failed", "expired", "cancelled"}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    upstream = Upstream().start()
    stack = Stack(tmp_path_factory.mktemp("stack"), {"ollama": upstream.url})
    try:
        stack.start()
        yield stack, upstream
    finally:
        stack.stop()
        upstream.stop()


@pytest.fixture
def stack(running):
    """chatd, which is afterwards as it was."""
    stack, upstream = running
    front, keeper = stack.api.pid, stack.keeper.pid
    accepted, called = stack.balanced().get("accepted", 0), upstream.calls.total()
    yield stack

    assert stack.http.get(f"{stack.url}/ready", timeout=60).status_code == 200
    assert (stack.balanced().get("accepted", 0), upstream.calls.total()) == (accepted, called)
    held = {pid: peak_mib(pid) for pid in (*family(front), *family(keeper))}
    assert max(held.values()) < MOST_MIB, held
    assert [line for line in stack.api.output().splitlines() if "Traceback" in line] == []


def peak_mib(pid):
    """The most memory that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def filled(unit, head=b'{"a":[', tail=b"0]}"):
    """A body as large as one may be."""
    return head + unit * ((BODY_LIMIT - len(head) - len(tail)) // len(unit)) + tail


KEYS = b"{" + b",".join(b'"%d":0' % number for number in range(MAX_VALUES - 1)) + b"}"
BODIES = [
    # What Python cannot read, and what it reads and should not.
    pytest.param(b"[" * 90_000, "nested too deeply", id="90,000 levels"),
    pytest.param(b'{"a":' * 100_000, "more than 100000 values", id="100,000 levels"),
    pytest.param(b'{"a":' * 65 + b"0" + b"}" * 65, "at most 64 levels", id="65 levels"),
    pytest.param(b'{"a":1e400}', "1e400 is too large", id="1e400"),
    pytest.param(b'{"a":' + b"9" * 5000 + b"}", "thousands of digits", id="5,000 digits"),
    pytest.param(filled(b"9", b'{"a":', b"}"), "thousands of digits", id="10 MB of digits"),
    pytest.param(filled(b"9", b'{"a":0.', b"}"), "a is not a known field", id="10 MB behind a dot"),
    pytest.param(b'{"a":NaN}', "NaN is not JSON", id="NaN"),
    pytest.param(b'{"model":"a","model":"b"}', "stands twice", id="a key twice"),
    pytest.param(b'{"a":\0}', "not JSON", id="NUL"),
    pytest.param(b'{"a":"\\ud800"}', "half of a surrogate pair", id="lone surrogate"),
    pytest.param(b'{"\\udfff":1}', "half of a surrogate pair", id="lone surrogate as a key"),
    pytest.param(b'{"a":"\xed\xa0\x80"}', "not UTF-8", id="surrogate in UTF-8"),
    pytest.param(b'{"a":"\xc0\xaf"}', "not UTF-8", id="overlong UTF-8"),
    pytest.param(b'{"a":"\xff"}', "not UTF-8", id="invalid UTF-8"),
    pytest.param('{"a":1}'.encode("utf-16"), "not UTF-8", id="UTF-16"),
    pytest.param(b"\xef\xbb\xbf{}", "byte order mark", id="byte order mark"),
    pytest.param(filled(b"0,"), "more than 100000 values", id="10 MB of numbers"),
    pytest.param(filled(b"{},"), "more than 100000 values", id="10 MB of objects"),
    pytest.param(
        filled(b"0,", b'{"model":"m","messages":['), "more than 100000", id="10 MB of faults"
    ),
    pytest.param(filled(b'\\"', b'{"', b""), "not JSON", id="10 MB of quotes"),
    pytest.param(KEYS, "is not a known field", id="as many unknown fields as there may be"),
]


@pytest.mark.parametrize("path", ["chat", "chat/completions", "jobs", "batches", "evaluations"])
@pytest.mark.parametrize(("body", "words"), BODIES)
def test_a_body_that_is_no_good_json_is_refused(stack, path, body, words):
    """Whichever call it is sent to."""
    reply = stack.http.post(f"{stack.url}/v1/{path}", data=body, timeout=60)

    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["code"] == "invalid_request"
    assert words in reply.json()["error"]["message"]
    assert len(reply.content) < 10_000


def answered(stack, sent, *, end=False):
    """Status, headers and body of what the server answers to these bytes."""
    with closing(connected(stack, sent)) as connection:
        if end:
            connection.shutdown(socket.SHUT_WR)
        response = HTTPResponse(connection)
        response.begin()
        return response.status, response.headers, response.read()


def connected(stack, sent):
    connection = socket.create_connection(("127.0.0.1", stack.port), timeout=60)
    connection.sendall(sent)
    return connection


def head(*lines, target="/v1/jobs", method="POST"):
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode(
        "latin1"
    )


WHOLE = json.dumps(CHAT).encode()
LENGTH = f"Content-Length: {len(WHOLE)}"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(head(LENGTH, "Content-Length: 5") + WHOLE, 400, id="two lengths"),
        pytest.param(head(LENGTH, "Transfer-Encoding: chunked"), 400, id="length and chunks"),
        pytest.param(head("Transfer-Encoding: xchunked"), 501, id="unknown coding"),
        pytest.param(head("Content-Length: -1"), 400, id="negative length"),
        pytest.param(head("Content-Length: +2") + b"{}", 400, id="signed length"),
        pytest.param(head(f"Content-Length: {'9' * 5000}"), 400, id="length of 5,000 digits"),
        pytest.param(head(LENGTH, "Idempotency-Key: a\r\n b") + WHOLE, 400, id="folded header"),
        pytest.param(head(LENGTH, "Idempotency-Key: a\0b") + WHOLE, 400, id="NUL in a header"),
        pytest.param(head(LENGTH, "Idempotency-Key: é") + WHOLE, 400, id="header beyond ASCII"),
        pytest.param(head(LENGTH, "Idempotency Key: a") + WHOLE, 400, id="blank in a name"),
        pytest.param(head(LENGTH, "Content-Encoding: gzip") + WHOLE, 400, id="compressed"),
        pytest.param(head(LENGTH, f"X-A: {'a' * 9000}"), 431, id="long header"),
        pytest.param(head(LENGTH, *(f"X-{n}: 1" for n in range(100))), 431, id="many headers"),
        pytest.param(head(target="/" + "a" * 5000), 414, id="long target"),
        pytest.param(head(method="get", target="/health"), 400, id="method in small letters"),
        pytest.param(b"\0\1\2\r\n\r\n", 400, id="no HTTP"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, id="HTTP/2"),
    ],
)
def test_what_is_no_good_http_is_refused(stack, sent, status):
    """Where two servers read one request differently, another one can be smuggled in behind it."""
    assert answered(stack, sent)[0] == status


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        pytest.param(head(f"Content-Length: {10**14}"), 413, "body_limit", id="told before"),
        pytest.param(
            head("Transfer-Encoding: chunked")
            + (b"100000\r\n" + b" " * MIB + b"\r\n") * 11
            + b"0\r\n\r\n",
            413,
            "body_limit",
            id="in chunks",
        ),
        pytest.param(head("Content-Length: 999") + b"{", 400, "after 1 of 999", id="broken off"),
        pytest.param(
            head("Transfer-Encoding: chunked") + b"5\r\n{", 400, "broke off", id="chunk broken off"
        ),
        pytest.param(
            head("Transfer-Encoding: chunked") + b"-1\r\n", 400, "malformed", id="negative chunk"
        ),
        pytest.param(
            head("Transfer-Encoding: chunked") + b"1\r\n \r\n" * 100_000 + b"0\r\n\r\n",
            400,
            "empty",
            id="100,000 chunks",
        ),
    ],
)
def test_a_body_that_is_too_long_or_too_short_is_refused(stack, sent, status, words):
    """With what is wrong; the rest of a refused body is waited for no longer than half a minute."""
    found, _, body = answered(stack, sent, end=status == 400)

    assert (found, words in json.loads(body)["error"]["message"]) == (status, True), body


def test_clients_that_send_half_a_body_and_wait_hold_nobody_up(stack):
    """Three hundred of them, on either kind of call."""
    with ExitStack() as opened:
        for number in range(300):
            path = "/v1/chat" if number % 2 else "/v1/files"
            boundary = "Content-Type: multipart/form-data; boundary=b"
            sent = head("Content-Length: 9999", boundary, target=path) + b"--b\r\n"
            opened.enter_context(closing(connected(stack, sent)))
        statuses = {
            stack.http.get(f"{stack.url}/v1/jobs", timeout=60).status_code for _ in range(20)
        }

    assert statuses == {200}


EVIL = [
    "..",
    "%2e%2e",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%2fetc%2fpasswd",
    "..%5c..%5c",
    "%00",
    "%ff",
    "%0d%0aX-Evil:%201",
    "{id}%00",
    "{id}%2f..",
    "{id}%0a",
    "a" * 3000,
]
BY_ID = [op for op in OPERATIONS if "_id}" in op.path]


@pytest.mark.parametrize("operation", BY_ID, ids=lambda op: f"{op.method} {op.path}")
def test_an_id_that_leads_elsewhere_leads_nowhere(stack, operation):
    """Neither out of a folder, nor into a header, nor to another thing."""
    prefix = operation.parameters[0]["schema"]["pattern"].removeprefix("^").partition("[")[0]
    for evil in EVIL:
        target = operation.path.partition("{")[0] + evil.replace("{id}", prefix + "0" * 26)
        target += operation.path.partition("}")[2]
        connection = HTTPConnection("127.0.0.1", stack.port, timeout=60)
        connection.request(operation.method.upper(), target)
        response = connection.getresponse()
        body = json.loads(response.read())
        connection.close()

        assert response.status == 404, (target, body)
        assert body["error"]["code"].endswith("not_found")
        assert "X-Evil" not in response.headers


def upload(stack, name, content):
    """POST /v1/files with the name as it stands in the header."""
    form = (
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; ' + name + b"\r\n\r\n"
    )
    return stack.http.post(
        f"{stack.url}/v1/files",
        data=form + content + b"\r\n--b--\r\n",
        headers={"Content-Type": "multipart/form-data; boundary=b"},
        timeout=120,
    )


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(b"filename*=UTF-8''a%0d%0aX-Evil:%201", id="line break"),
        pytest.param(b"filename*=UTF-8''a%00b", id="NUL"),
        pytest.param('filename="a\u2028b"'.encode(), id="line separator"),
        pytest.param('filename="a\u202eb"'.encode(), id="right to left"),
        pytest.param(b'filename="a\x0bb"', id="control character"),
        pytest.param(b'filename="' + b"a" * 300 + b'"', id="long"),
    ],
)
def test_a_file_name_that_cannot_be_printed_is_refused(stack, name):
    """Before anything of the file is stored."""
    files = stack.folder / "data" / "files"
    before = {path.name for path in files.glob("*")}
    reply = upload(stack, name, b"{}\n")

    assert reply.status_code == 400, reply.text
    assert {path.name for path in files.glob("*")} == before


@pytest.mark.parametrize(
    "name",
    [
        pytest.param('a"; filename="b', id="quote"),
        pytest.param("a\\", id="backslash"),
        pytest.param("../../../etc/cron.d/evil", id="path"),
        pytest.param("%0d%0aX-Evil: 1", id="encoded line break"),
        pytest.param("ü\"; filename=b; x='", id="beyond ASCII"),
    ],
)
def test_any_other_file_name_comes_back_as_it_was(stack, name):
    """In a header that a client reads as one name, whatever stands in it."""
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    made = upload(stack, f'filename="{quoted}"'.encode(), b"{}\n").json()
    url = f"{stack.url}/v1/files/{made['id']}"
    got = stack.http.get(f"{url}/content", timeout=60)
    stack.http.delete(url, timeout=60)

    assert made["filename"] == name
    header = Message()
    header["Content-Disposition"] = got.headers["Content-Disposition"]
    assert header.get_filename() == name
    assert "X-Evil" not in got.headers


def test_metadata_stays_out_of_headers(stack):
    """It is the caller's own, and comes back in JSON alone."""
    metadata = {"a\r\nX-Evil: 1": "b\r\n\r\n<html>\0"}
    line = json.dumps({"custom_id": "x", "method": "POST", "url": "/v1/chat", "body": CHAT})
    file_id = upload(stack, b'filename="f"', b"[" + line.encode()).json()["id"]
    body = {"input_file_id": file_id, "endpoint": "/v1/chat", "completion_window": "1h"}
    made = stack.http.post(f"{stack.url}/v1/batches", json={**body, "metadata": metadata})

    assert made.json()["metadata"] == metadata
    assert "X-Evil" not in made.headers


def line(custom_id="a", **changes):
    return request_line(custom_id, **changes).encode()


FILES = [
    pytest.param(b"x" * (50 * MIB), ["too_large"], "longer than 10485760 bytes", id="a 50 MB line"),
    pytest.param(b"\n" * 10**6, ["empty_file"], "no requests", id="a million empty lines"),
    pytest.param(b" \t\r\n" * 10**6, ["empty_file"], "no requests", id="a million blank lines"),
    pytest.param(
        b"\n".join([b"[" * 90_000] * 3), ["invalid_request"] * 3, "nested too deeply", id="deep"
    ),
    pytest.param(
        b"[" * 10 * MIB, ["invalid_request"], "more than 100000 values", id="deep in 10 MB"
    ),
    pytest.param(
        (filled(b"0,")[: -2 * MIB] + b"\n") * 5,
        ["invalid_request"] * 5,
        "more than 100000 values",
        id="five lines of numbers",
    ),
    pytest.param(
        b"\n".join([line("a")] * 3), ["duplicate_custom_id"] * 2, "earlier line", id="an id twice"
    ),
    pytest.param(b"\0" * 10**6, ["invalid_request"], "not JSON", id="NUL"),
    pytest.param(line().replace(b'"a"', b'"\\ud800"'), ["invalid_request"], "half", id="surrogate"),
    pytest.param(line().decode().encode("utf-16"), ["invalid_request"], "not UTF-8", id="UTF-16"),
    pytest.param(b"\xef\xbb\xbf" + line(), ["invalid_request"], "byte order mark", id="BOM"),
    pytest.param(b"\x80\n" * 10**5, ["invalid_request"] * 100, "not UTF-8", id="100,000 bad lines"),
    pytest.param(
        line().replace(b"}}", b"},}"), ["invalid_request"], "not JSON", id="one comma too many"
    ),
]


def run_over(stack, kind, content, fields):
    """A batch or an evaluation that began with a file of this content, once it is over."""
    file_id = upload(stack, b'filename="in.jsonl"', content).json()["id"]
    url = f"{stack.url}/v1/{kind}"
    made = stack.http.post(url, json={"input_file_id": file_id, **fields}, timeout=60)
    assert made.status_code == 200, made.text

    def ended():
        found = stack.http.get(f"{url}/{made.json()['id']}", timeout=60).json()
        return found if found["status"] in OVER else None

    return eventually(ended, within_s=60, what="it is over")


@pytest.mark.parametrize(("content", "codes", "words"), FILES)
def test_a_file_of_hostile_lines_fails_its_batch(stack, content, codes, words):
    """Every fault is told by its line, up to a hundred of them, and no line is sent."""
    batch = run_over(stack, "batches", content, {"endpoint": "/v1/chat", "completion_window": "1h"})

    assert batch["status"] == "failed"
    assert [fault["code"] for fault in batch["errors"]["data"]] == codes
    assert words in batch["errors"]["data"][0]["message"]


@pytest.mark.parametrize("content", [case.values[0] for case in FILES], ids=[c.id for c in FILES])
def test_a_dataset_of_hostile_lines_fails_its_evaluation(stack, content):
    """The same files as samples."""
    suite = {"name": "n", "models": ["echo"], "scorers": [{"type": "exact"}]}
    run = run_over(stack, "evaluations", content, {"suite": suite})

    assert (run["status"], run["samples"]) == ("failed", 0)
    assert 1 <= len(run["errors"]["data"]) <= 100
