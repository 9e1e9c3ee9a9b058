"""The line that each request leaves in the log, and its id on every line beside it."""

from __future__ import annotations

import logging

import pytest

from chat.errors import JobNotFound, QueueFull, UpstreamTimeout
from chat.settings import ChatdConfig
from tests.fakes import gateway, response_of
from tests.log_lines import logging_into_memory

BODY = {"model": "qwen3:8b", "messages": [{"role": "user", "content": "hi"}]}
JOB = "job_00000000000000000000000000"


class Door:
    """A front end over fakes whose requests are logged."""

    def __init__(self, written, config=None):
        self.written = written
        self.gate = gateway(config)
        self.gate.store.respond = response_of
        self.app = self.gate.client.application

    def ask(self, method, path, request_id="trace-1", **options):
        headers = {"X-Request-Id": request_id}
        return self.gate.client.open(path, method=method, headers=headers, **options)

    @property
    def requests(self):
        """The lines of requests, without what every line has."""
        usual = {"time", "process", "logger"}
        return [
            {name: value for name, value in event.items() if name not in usual}
            for event in self.written.events
            if event["logger"] == "api.request_log"
        ]


@pytest.fixture
def door():
    with logging_into_memory() as written:
        door = Door(written)
        written.configure("json", "info")
        yield door


def test_an_answer_is_logged_with_its_job_and_how_long_it_took(door):
    """Not what was asked or answered."""

    def respond(job):
        door.gate.clock.advance(1.25)
        return response_of(job, content="my secret answer")

    door.gate.store.respond = respond
    job_id = door.ask("POST", "/v1/chat?key=sk-secret", json=BODY).json["id"]

    assert door.requests == [
        {
            "level": "info",
            "message": "POST /v1/chat: 200 in 1250 ms",
            "method": "POST",
            "path": "/v1/chat",
            "status": 200,
            "duration_ms": 1250.0,
            "request_id": "trace-1",
            "job_id": job_id,
        }
    ]
    assert not [line for line in door.written.lines if "secret" in line or '"hi"' in line]


def test_an_accepted_job_is_logged_with_its_id(door):
    """Whichever way it was handed in."""
    ids = [
        door.ask("POST", "/v1/jobs", json=BODY).json["id"],
        door.gate.client.post("/v1/chat", json=BODY, headers={"Prefer": "respond-async"}).json[
            "id"
        ],
    ]
    found = [(event["status"], event["job_id"]) for event in door.requests]

    assert found == [(202, job_id) for job_id in ids]


def test_who_asks_for_a_job_names_it(door):
    """Its record, its cancellation, and an error that comes between."""
    job_id = door.ask("POST", "/v1/jobs", json=BODY).json["id"]
    door.ask("GET", f"/v1/jobs/{job_id}")
    door.ask("POST", f"/v1/jobs/{job_id}/cancel")
    door.ask("GET", f"/v1/jobs/{job_id}?wait=soon")
    found = [(event["status"], event["job_id"]) for event in door.requests[1:]]

    assert found == [(200, job_id), (200, job_id), (400, job_id)]


@pytest.mark.parametrize(
    ("error", "status", "job_id"),
    [
        (QueueFull("full"), 429, None),
        (UpstreamTimeout("slow", job_id=JOB), 504, JOB),
        (JobNotFound("gone", job_id=JOB), 404, JOB),
    ],
    ids=["without a job", "with one", "not found"],
)
def test_an_error_is_logged_by_its_code(door, error, status, job_id):
    """And with its job, when it is about one."""
    door.gate.store.refusal = error
    door.ask("POST", "/v1/chat", json=BODY)
    (event,) = door.requests

    assert event["message"] == f"POST /v1/chat: {status} {error.code} in 0 ms"
    assert (event["level"], event["status"], event["code"]) == ("info", status, error.code)
    assert event.get("job_id") == job_id


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("DELETE", "/v1/chat", 405, "method_not_allowed"),
        ("POST", "/v1/chat", 413, "too_large"),
        ("GET", "/v1/jobs/job_nonsense", 404, "job_not_found"),
    ],
    ids=["path", "method", "size", "id"],
)
def test_what_reaches_no_job_is_logged_too(door, method, path, status, code):
    """Flask's own refusals among it."""
    door = Door(door.written, ChatdConfig(body_limit=10))
    door.ask(method, path, data=b"x" * 11)
    (event,) = door.requests

    assert (event["method"], event["path"]) == (method, path)
    assert (event["status"], event["code"]) == (status, code)
    assert "job_id" not in event


def test_a_path_that_somebody_makes_up_stays_on_one_short_line(door):
    """It could look like another event, and be as long as a request line may be."""
    door.ask("GET", "/a%0A%7B%22level%22:" + "x" * 4000)
    (event,) = door.requests

    assert event["path"].startswith('/a\n{"level":x')
    assert len(event["path"]) == 201
    assert len(door.written.lines) == 1


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
def test_what_is_polled_is_no_news(door, path):
    """It is logged at debug only."""
    door.ask("GET", path)
    quiet = door.requests
    door.written.configure("json", "debug")
    door.ask("GET", path)

    assert quiet == []
    assert [(event["level"], event["path"]) for event in door.requests] == [("debug", path)]


def test_every_line_of_a_request_has_its_id(door):
    """Also one of a library, and a traceback; the next request has another."""

    def bug(job):
        logging.getLogger("some.library").warning("careful")
        raise ZeroDivisionError(job.id)

    door.gate.store.respond = bug
    for request_id in ("trace-1", "trace-2"):
        door.ask("POST", "/v1/chat", request_id, json=BODY)
    logging.getLogger("some.library").warning("between requests")
    found = [(event["logger"], event.get("request_id")) for event in door.written.events]

    assert found == [
        *(
            (logger, request_id)
            for request_id in ("trace-1", "trace-2")
            for logger in ("some.library", "api.errors", "api.request_log")
        ),
        ("some.library", None),
    ]
    assert all(event["code"] == "internal_error" for event in door.requests)
    assert "ZeroDivisionError" in door.written.events[1]["exception"]


def test_a_request_that_ends_without_an_answer_leaves_no_id_behind(door):
    """As when the server has to end while it is answered: the connection's greenlet may go on."""

    class Killed(BaseException):
        """What no error handler sees, like a greenlet's end."""

    def kill(_):
        raise Killed

    door.gate.store.respond = kill
    with pytest.raises(Killed):
        door.ask("POST", "/v1/chat", json=BODY)
    logging.getLogger("some.library").warning("afterwards")
    *_, last = door.written.events

    assert last["message"] == "afterwards"
    assert "request_id" not in last
    assert door.requests == []


def test_the_id_is_the_one_the_caller_gets(door):
    """Made up when the caller sent none."""
    made = door.gate.client.get("/v1/jobs/job_nonsense").headers["X-Request-Id"]

    assert door.requests[0]["request_id"] == made
