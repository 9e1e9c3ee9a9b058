"""Who may call what: keys, owners, limits, pages in browsers, and headers on every answer."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from werkzeug.test import TestResponse

from api.operations import OPERATIONS
from chat.access import hash_of
from chat.errors import QueueUnavailable
from chat.settings import ChatdConfig, KeyConfig
from tests.fakes import Gateway, gateway, response_of

ALICE, BOB, ADMIN, SLOW = "chatd-alice", "chatd-bob", "chatd-admin", "chatd-slow"
PAGE = "https://chat.example.com"
BODY = {"model": "kimi/k3", "messages": [{"role": "user", "content": "x"}]}
LINE = b'{"custom_id":"1","method":"POST","url":"/v1/chat","body":{}}\n'
OPEN = {"/health", "/ready", "/openapi.json"}

Call = Callable[..., TestResponse]


def config(folder: Any = "var", **more: Any) -> ChatdConfig:
    """Four keys, one of them an admin's and one with limits."""
    keys = (
        KeyConfig(name="alice", sha256=hash_of(ALICE)),
        KeyConfig(name="bob", sha256=hash_of(BOB)),
        KeyConfig(name="ops", sha256=hash_of(ADMIN), admin=True),
        KeyConfig(name="slow", sha256=hash_of(SLOW), requests_per_minute=60, concurrency=2),
    )
    return ChatdConfig(keys=keys, data_dir=folder, **more)


@pytest.fixture
def gate(tmp_path) -> Gateway:
    """A front end with keys."""
    return gateway(config(tmp_path))


@pytest.fixture
def call(gate: Gateway) -> Call:
    """Makes one call with a key."""

    def send(key: str | None, method: str, path: str, **options: Any) -> TestResponse:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        headers |= options.pop("headers", {})
        return gate.client.open(path, method=method, headers=headers, **options)

    return send


def upload(call: Call, key: str, **headers: str) -> str:
    """The id of a file of this caller."""
    reply = call(
        key,
        "POST",
        "/v1/files",
        data={"purpose": "batch", "file": (BytesIO(LINE), "in.jsonl")},
        headers=headers,
    )
    assert reply.status_code == 200, reply.text
    return str(reply.get_json()["id"])


class TestKeys:
    """Nothing is answered without one, but whether chatd is there."""

    @pytest.mark.parametrize(
        "operation", OPERATIONS, ids=lambda operation: f"{operation.method} {operation.path}"
    )
    def test_every_call_but_three_wants_a_key(self, call, operation):
        """Before anything else is looked at: body, path, Redis."""
        path = operation.path.replace("{", "").replace("}", "")
        reply = call(None, operation.method.upper(), path)

        if operation.path in OPEN:
            assert reply.status_code == 200
        else:
            assert (reply.status_code, reply.json["error"]["code"]) == (401, "unauthorized")
            assert reply.headers["WWW-Authenticate"] == "Bearer"
            assert reply.headers["X-Should-Retry"] == "false"

    @pytest.mark.parametrize(
        "header",
        [
            "",
            "Bearer",
            "Bearer ",
            "Bearer chatd-alic",
            "Bearer chatd-alice, Bearer chatd-bob",
            "Basic YWxpY2U6Y2hhdGQtYWxpY2U=",
            "chatd-alice",
            f"Bearer {hash_of(ALICE)}",
            "Bearer chatd-alice\xff",
        ],
    )
    def test_what_is_no_key_is_refused_and_not_repeated(self, gate, call, header):
        """Nothing is queued for it."""
        reply = call(None, "POST", "/v1/chat", json=BODY, headers={"Authorization": header})

        assert reply.status_code == 401
        assert "alic" not in reply.text
        assert gate.store.asked == []

    @pytest.mark.parametrize(
        "header", ["Bearer chatd-alice", "bearer chatd-alice ", "BEARER  chatd-alice"]
    )
    def test_a_key_opens_however_the_scheme_is_written(self, call, header):
        """RFC 9110, section 11.1: its case does not matter."""
        assert call(None, "GET", "/v1/jobs", headers={"Authorization": header}).status_code == 200

    def test_a_path_that_is_not_there_is_not_told_to_strangers(self, call):
        """Nor a method."""
        assert call(None, "GET", "/v1/nothing").status_code == 401
        assert call(None, "PUT", "/v1/chat").status_code == 401
        assert call(ALICE, "GET", "/v1/nothing").status_code == 404

    def test_without_keys_a_header_is_not_looked_at(self, tmp_path):
        """OpenAI's clients send one whatever they are told."""
        gate = gateway(ChatdConfig(data_dir=tmp_path))
        headers = {"Authorization": "Bearer unused"}

        assert gate.client.get("/v1/jobs", headers=headers).status_code == 200
        assert gate.client.get("/metrics").status_code == 200

    @pytest.mark.parametrize(
        ("method", "path"), [("GET", "/metrics"), ("DELETE", "/v1/evaluations/cache")]
    )
    def test_what_concerns_everybody_is_for_admins(self, call, method, path):
        """Others are told so."""
        refused = call(ALICE, method, path)

        assert (refused.status_code, refused.json["error"]["code"]) == (403, "forbidden")
        assert call(ADMIN, method, path).status_code == 200


class TestOwners:
    """What is somebody else's is not there."""

    def test_a_job_is_its_callers(self, gate, call):
        """Read, awaited, cancelled and listed."""
        job_id = call(ALICE, "POST", "/v1/jobs", json=BODY).json["id"]
        unknown = job_id[:-1] + ("0" if job_id[-1] != "0" else "1")
        calls = [("GET", ""), ("GET", "?wait=1"), ("GET", "/events"), ("POST", "/cancel")]
        for method, suffix in calls:
            refused = call(BOB, method, f"/v1/jobs/{job_id}{suffix}")
            missing = call(BOB, method, f"/v1/jobs/{unknown}{suffix}")
            assert refused.status_code == missing.status_code == 404
            assert refused.text.replace(job_id, "") == missing.text.replace(unknown, "")

        assert gate.store.jobs[job_id].state == "queued"
        assert call(BOB, "GET", "/v1/jobs").json["jobs"] == []
        for key in (ALICE, ADMIN):
            assert [job["id"] for job in call(key, "GET", "/v1/jobs").json["jobs"]] == [job_id]
            assert call(key, "GET", f"/v1/jobs/{job_id}").json["owner"] == "alice"
        assert call(ADMIN, "POST", f"/v1/jobs/{job_id}/cancel").json["state"] == "cancelled"

    @pytest.mark.parametrize("path", ["/v1/jobs", "/v1/chat", "/v1/chat/completions"])
    def test_one_idempotency_key_of_two_callers_is_two(self, gate, call, path):
        """The answer of the one is not told to the other, nor that there is one."""
        gate.store.respond = response_of
        headers = {"Idempotency-Key": "k"}
        first, again, other = (
            call(key, "POST", path, json=BODY, headers=headers) for key in (ALICE, ALICE, BOB)
        )

        assert len(gate.store.jobs) == 2
        assert first.json["id"] == again.json["id"] != other.json["id"]
        assert {job.new.owner for job in gate.store.jobs.values()} == {"alice", "bob"}

    def test_a_file_is_its_callers(self, call):
        """Read, downloaded, deleted, listed, and given to a batch or an evaluation."""
        file_id = upload(call, ALICE)
        suite = {"name": "s", "models": ["kimi/k3"], "scorers": [{"type": "exact"}]}
        calls: list[tuple[str, str, Any]] = [
            ("GET", f"/v1/files/{file_id}", None),
            ("GET", f"/v1/files/{file_id}/content", None),
            ("DELETE", f"/v1/files/{file_id}", None),
            (
                "POST",
                "/v1/batches",
                {"input_file_id": file_id, "endpoint": "/v1/chat", "completion_window": "24h"},
            ),
            ("POST", "/v1/evaluations", {"input_file_id": file_id, "suite": suite}),
        ]
        for method, path, body in calls:
            refused = call(BOB, method, path, json=body)
            assert (refused.status_code, refused.json["error"]["code"]) == (404, "file_not_found")

        assert call(BOB, "GET", "/v1/files").json["data"] == []
        for key in (ALICE, ADMIN):
            assert [one["id"] for one in call(key, "GET", "/v1/files").json["data"]] == [file_id]
            content = call(key, "GET", f"/v1/files/{file_id}/content", buffered=True)
            assert content.data == LINE
        assert call(ALICE, "DELETE", f"/v1/files/{file_id}").status_code == 200

    def test_one_idempotency_key_of_two_callers_is_two_files(self, call):
        """The same content too."""
        headers = {"Idempotency-Key": "k"}
        ids = [upload(call, key, **headers) for key in (ALICE, BOB, ALICE)]

        assert ids[0] == ids[2] != ids[1]

    @pytest.mark.parametrize("kind", ["batches", "evaluations"])
    def test_a_run_is_its_callers(self, call, kind):
        """Read, cancelled, listed, and made again with the same key."""
        suite = {"name": "s", "models": ["kimi/k3"], "scorers": [{"type": "exact"}]}
        headers = {"Idempotency-Key": "k"}

        def make(key: str) -> str:
            body: dict[str, Any] = {"input_file_id": upload(call, key)}
            if kind == "batches":
                body |= {"endpoint": "/v1/chat", "completion_window": "24h"}
            else:
                body |= {"suite": suite}
            reply = call(key, "POST", f"/v1/{kind}", json=body, headers=headers)
            return str(reply.get_json()["id"])

        hers, his = make(ALICE), make(BOB)
        calls = [("GET", ""), ("POST", "/cancel")]
        if kind == "evaluations":
            calls += [("POST", "/retry"), ("GET", "/report"), ("GET", "/report?format=json")]
        for method, suffix in calls:
            refused = call(BOB, method, f"/v1/{kind}/{hers}{suffix}")
            assert refused.status_code == 404
            assert refused.json["error"]["code"].endswith("_not_found")

        listed = {
            key: [run["id"] for run in call(key, "GET", f"/v1/{kind}").json["data"]]
            for key in (ALICE, BOB, ADMIN)
        }
        assert listed == {ALICE: [hers], BOB: [his], ADMIN: [his, hers]}
        assert call(BOB, "GET", f"/v1/{kind}?limit=1").json["has_more"] is False
        assert call(ADMIN, "GET", f"/v1/{kind}?limit=1").json["has_more"] is True
        assert call(ALICE, "GET", f"/v1/{kind}/{hers}").json["status"] == "validating"
        assert call(ADMIN, "POST", f"/v1/{kind}/{hers}/cancel").json["status"] == "cancelling"


class TestLimits:
    """What one key may do; Redis counts it, see the tests of the store."""

    def test_a_call_is_open_until_it_is_answered(self, gate, call):
        """Also when it fails."""
        assert call(SLOW, "GET", "/v1/jobs").status_code == 200
        assert call(SLOW, "POST", "/v1/chat", data=b"{").status_code == 400
        assert call(SLOW, "GET", "/v1/nothing").status_code == 404
        assert gate.store.asked.count("begin_call") == gate.store.asked.count("end_call") == 3
        assert gate.store.open == []

    def test_calls_of_one_request_id_are_several(self, gate, call):
        """The id is the caller's to choose."""
        begun: list[str] = []
        gate.store.begin_call = lambda _, call_id: begun.append(call_id)
        gate.store.end_call = lambda *_: None
        for _ in range(3):
            call(SLOW, "GET", "/v1/files", headers={"X-Request-Id": "mine"})

        assert len(set(begun)) == 3

    def test_a_call_too_many_is_refused_and_not_counted(self, gate, call):
        """With the time to come back."""
        gate.store.open = ["one", "two"]
        refused = call(SLOW, "POST", "/v1/chat", json=BODY)

        assert (refused.status_code, refused.json["error"]["code"]) == (429, "client_limited")
        assert refused.headers["Retry-After"] == "1"
        assert "X-Should-Retry" not in refused.headers
        assert gate.store.open == ["one", "two"]
        assert not gate.store.jobs

    def test_keys_without_limits_cost_no_round_trip(self, gate, call):
        """Nor does a chatd without keys."""
        call(ALICE, "GET", "/v1/files")

        assert gate.store.asked == []

    def test_an_answer_survives_that_redis_is_gone_at_its_end(self, gate, call):
        """The call counts until its time is over."""

        def gone(*_: object) -> None:
            raise QueueUnavailable("gone")

        gate.store.end_call = gone

        assert call(SLOW, "GET", "/v1/files").status_code == 200


class TestPages:
    """A page in a browser on this machine reaches chatd as well as any program here."""

    @pytest.mark.parametrize(
        "origin", ["https://evil.example", "null", "http://localhost:3220", ""]
    )
    def test_a_page_may_not_call_unless_it_is_named(self, tmp_path, origin):
        """A form of any page could else spend keys: bodies need no Content-Type of theirs."""
        for keys in ((), config().keys):
            gate = gateway(ChatdConfig(keys=keys, data_dir=tmp_path))
            headers = {"Origin": origin, "Content-Type": "text/plain"}
            refused = gate.client.post("/v1/jobs", json=BODY, headers=headers)

            assert refused.status_code == 403
            assert refused.get_json()["error"]["code"] == "forbidden"
            assert "Access-Control-Allow-Origin" not in refused.headers
            assert gate.store.asked == []
            assert gate.client.options("/v1/jobs", headers=headers).status_code == 403

    def test_a_page_that_is_named_may(self, tmp_path):
        """After it has asked, which needs no key; the call itself does."""
        gate = gateway(config(tmp_path, allowed_origins=(PAGE,)))
        asked = gate.client.options(
            "/v1/chat", headers={"Origin": PAGE, "Access-Control-Request-Method": "POST"}
        )
        refused = gate.client.post("/v1/jobs", json=BODY, headers={"Origin": PAGE})
        headers = {"Origin": PAGE, "Authorization": f"Bearer {ALICE}"}
        made = gate.client.post("/v1/jobs", json=BODY, headers=headers)

        assert asked.status_code == 204
        assert "POST" in asked.headers["Access-Control-Allow-Methods"]
        assert "Authorization" in asked.headers["Access-Control-Allow-Headers"]
        assert "Access-Control-Allow-Credentials" not in asked.headers
        for reply, status in ((asked, 204), (refused, 401), (made, 202)):
            assert reply.status_code == status
            assert reply.headers["Access-Control-Allow-Origin"] == PAGE
            assert "Origin" in reply.headers["Vary"]

    def test_another_page_may_still_not(self, tmp_path):
        """And learns of no other."""
        gate = gateway(config(tmp_path, allowed_origins=(PAGE,)))
        refused = gate.client.get("/v1/jobs", headers={"Origin": "https://evil.example"})

        assert refused.status_code == 403
        assert PAGE not in str(refused.headers) + refused.text

    @pytest.mark.parametrize(
        ("host", "status"),
        [
            ("localhost:3220", 200),
            ("LOCALHOST", 200),
            ("127.0.0.1:3220", 200),
            ("[::1]:3220", 200),
            ("10.0.0.7", 200),
            ("chat.example.com", 200),
            ("evil.example:3220", 403),
            ("localhost.evil.example", 403),
            ("127.0.0.1.evil.example", 403),
            ("[::1", 403),
            ("", 403),
        ],
    )
    def test_without_keys_a_name_of_somebody_elses_is_refused(self, tmp_path, host, status):
        """A page's own name can be made to lead here: it would read what it likes."""
        gate = gateway(ChatdConfig(data_dir=tmp_path, allowed_origins=(PAGE,)))

        assert gate.client.get("/v1/jobs", headers={"Host": host}).status_code == status

    def test_with_keys_any_name_will_do(self, call):
        """A page has no key."""
        headers = {"Host": "chat.internal"}

        assert call(ALICE, "GET", "/v1/jobs", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/v1/jobs", "/v1/nothing", "/v1/evaluations/schema"])
def test_every_answer_tells_browsers_to_keep_their_hands_off(call, path):
    """Also an error."""
    for key in (ALICE, None):
        headers = call(key, "GET", path).headers

        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in headers
