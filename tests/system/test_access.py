"""Callers with keys at a whole chatd: what each sees, may, and costs the others."""

from __future__ import annotations

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from bench.upstream import Upstream
from chat.access import hash_of, new_key
from tests.leaks import files_below, leaks, redis_contents
from tests.servers import ROOT, python
from tests.stack import Stack
from tests.waiting import eventually

KEYS = {name: new_key() for name in ("alice", "bob", "ops", "slow", "many")}
MORE = {
    "ops": "admin = true",
    "slow": "requests_per_minute = 60",
    "many": "concurrency = 3",
}
TAIL = "\n".join(
    f'[[chatd.keys]]\nname = "{name}"\nsha256 = "{hash_of(key)}"\n{MORE.get(name, "")}'
    for name, key in KEYS.items()
)
OVER = {"completed", "failed", "expired", "cancelled"}


class Callers:
    """A stack with keys and two front ends, and calls with one of the keys."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    def call(self, name: str | None, method: str, path: str, **options) -> requests.Response:
        headers = {} if name is None else {"Authorization": f"Bearer {KEYS[name]}"}
        headers |= options.pop("headers", {})
        return self.stack.http.request(
            method, f"{self.stack.url}{path}", headers=headers, timeout=60, **options
        )

    def chat(self, name: str, question: str, **options) -> requests.Response:
        body = {"model": "echo", "messages": [{"role": "user", "content": question}]}
        return self.call(name, "POST", "/v1/chat", json=body, **options)

    def upload(self, name: str, line: object) -> str:
        content = json.dumps(line).encode() + b"\n"
        reply = self.call(
            name,
            "POST",
            "/v1/files",
            data={"purpose": "batch"},
            files={"file": ("a", content)},
        )
        return str(reply.json()["id"])

    def over(self, name: str, path: str) -> Any:
        """A run at its end."""

        def look():
            run = self.call(name, "GET", path).json()
            return run if run["status"] in OVER else None

        return eventually(look, within_s=60, what=f"{path} is over")

    def command(self, name: str | None, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command with the key in its environment."""
        environ = {**os.environ, **self.stack.environ}
        environ |= {"CHATD_API_KEY": KEYS[name] if name else ""}
        return subprocess.run(
            python("-m", "cli", *arguments),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=environ,
            cwd=ROOT,
        )


@pytest.fixture(scope="module")
def callers(tmp_path_factory):
    """Every process with its log, so that what it says of keys can be searched."""
    upstream = Upstream(delay_s=0.0, reply=lambda *_: None).start()
    folder = tmp_path_factory.mktemp("access")
    settings = 'log_level = "debug"\napi_processes = 2'
    stack = Stack(folder, {"ollama": upstream.url}, settings=settings, tail=TAIL)
    try:
        stack.start()
        yield Callers(stack)
    finally:
        stack.stop()
        upstream.stop()


def test_a_job_is_for_its_own_caller(callers):
    """Submitted, read, listed, cancelled and joined, over real processes."""
    mine = callers.chat("alice", "mine", headers={"Idempotency-Key": "same"}).json()
    his = callers.chat("bob", "his", headers={"Idempotency-Key": "same"}).json()

    assert (mine["content"], his["content"]) == ("echo: mine", "echo: his")
    for method, suffix in (
        ("GET", ""),
        ("GET", "?wait=5"),
        ("GET", "/events"),
        ("POST", "/cancel"),
    ):
        refused = callers.call("bob", method, f"/v1/jobs/{mine['id']}{suffix}")
        assert refused.status_code == 404
        assert "mine" not in refused.text
    listed = callers.call("bob", "GET", "/v1/jobs?limit=100").json()["jobs"]
    assert {job["owner"] for job in listed} == {"bob"}
    assert callers.call("alice", "GET", f"/v1/jobs/{mine['id']}").json()["owner"] == "alice"
    assert callers.call("ops", "GET", f"/v1/jobs/{mine['id']}").status_code == 200


def test_what_a_batch_makes_is_its_callers(callers):
    """Its jobs while they are there, its result file afterwards."""
    body = {"model": "echo", "messages": [{"role": "user", "content": "in a batch"}]}
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat", "body": body}
    asked = {
        "input_file_id": callers.upload("alice", line),
        "endpoint": "/v1/chat",
        "completion_window": "1h",
    }
    batch = callers.call("alice", "POST", "/v1/batches", json=asked).json()
    batch = callers.over("alice", f"/v1/batches/{batch['id']}")
    output = f"/v1/files/{batch['output_file_id']}/content"

    assert "echo: in a batch" in callers.call("alice", "GET", output).text
    assert callers.call("bob", "GET", output).status_code == 404
    assert callers.call("bob", "GET", f"/v1/batches/{batch['id']}").status_code == 404
    assert callers.call("ops", "GET", output).status_code == 200


def test_what_an_evaluation_makes_is_its_callers(callers):
    """Its report, the files of its round; and an answer it knows is no news for others."""
    suite = {
        "name": "s",
        "models": ["echo"],
        "parameters": {"temperature": 0},
        "scorers": [{"type": "contains"}],
    }

    sample = {"id": "1", "prompt": "ping", "expected": "ping"}

    def run(name: str) -> Any:
        asked = {
            "input_file_id": callers.upload(name, sample),
            "suite": suite,
        }
        made = callers.call(name, "POST", "/v1/evaluations", json=asked).json()
        return callers.over(name, f"/v1/evaluations/{made['id']}")

    first, his, again = run("alice"), run("bob"), run("alice")
    report = f"/v1/evaluations/{first['id']}/report?format=jsonl"

    assert [one["counts"]["cached"] for one in (first, his, again)] == [0, 0, 1]
    assert "echo: ping" in callers.call("alice", "GET", report).text
    assert callers.call("bob", "GET", report).status_code == 404
    (batch_id,) = first["batch_ids"]
    batch = callers.call("alice", "GET", f"/v1/batches/{batch_id}").json()
    output = f"/v1/files/{batch['output_file_id']}/content"
    assert callers.call("alice", "GET", output).status_code == 200
    assert callers.call("bob", "GET", output).status_code == 404
    assert callers.call("bob", "DELETE", "/v1/evaluations/cache").status_code == 403


def test_a_rate_holds_over_all_processes(callers):
    """Ten at once of sixty a minute, whichever process is asked; others go on."""
    with ThreadPoolExecutor(8) as pool:
        statuses = list(
            pool.map(lambda _: callers.call("slow", "GET", "/v1/jobs").status_code, range(40))
        )

    assert set(statuses) == {200, 429}
    assert 10 <= statuses.count(200) < 40
    refused = callers.call("slow", "GET", "/v1/jobs")
    assert refused.json()["error"]["code"] == "client_limited"
    assert int(refused.headers["Retry-After"]) >= 1
    assert callers.call("alice", "GET", "/v1/jobs").status_code == 200


def test_open_calls_have_a_bound_and_close(callers):
    """Others hold theirs until one of them is over."""
    counted, redis = "client:many:calls", callers.stack.redis.client
    asked = callers.call("many", "GET", "/v1/jobs")
    eventually(lambda: redis.zcard(counted) == 0, what="the call is over")
    for number in range(3):
        redis.zadd(counted, {f"open-{number}": 2**53})
    refused = callers.call("many", "GET", "/v1/jobs")
    redis.zrem(counted, "open-1")

    assert asked.status_code == 200
    assert refused.json()["error"]["code"] == "client_limited"
    assert callers.call("many", "GET", "/v1/jobs").status_code == 200


def test_commands_come_with_the_key_of_their_environment(callers):
    """And say what is wrong without."""
    asked = callers.command("alice", "ask", "-m", "echo", "hello")
    refused = callers.command(None, "ask", "-m", "echo", "hello")
    top = callers.command("alice", "top", "--once")
    listed = callers.command("bob", "batch", "list")

    assert (asked.returncode, asked.stdout) == (0, "echo: hello\n")
    assert refused.returncode == 1
    assert "unauthorized: this call needs a key" in refused.stderr
    assert top.returncode == 0, top.stdout + top.stderr
    assert "ollama" in top.stdout
    assert listed.returncode == 0, listed.stderr


def test_no_key_is_in_a_log_or_in_redis_or_on_disk(callers):
    """Nor its hash, but for the configuration; the log says who called."""
    stack = callers.stack
    almost = KEYS["alice"][:-1]
    callers.call(None, "GET", "/v1/jobs", headers={"Authorization": f"Bearer {almost}"})
    callers.call(None, "GET", "/v1/jobs", headers={"Authorization": f"Basic {KEYS['bob']}"})
    logs = "".join(child.output() for child in (stack.api, stack.keeper, *stack.workers.values()))
    places = [*redis_contents(stack.redis.url), *files_below(stack.folder)]
    places = [place for place in places if "lakehouse.toml" not in place[0]]
    hashes = {f"the hash of {name}": hash_of(key) for name, key in KEYS.items()}

    assert '"caller": "alice"' in logs
    assert len(places) > 20
    assert leaks({**KEYS, **hashes}, places) == []
