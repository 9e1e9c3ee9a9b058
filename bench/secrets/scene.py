"""All of chatd, with a key for each provider that takes one, while everything goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import redis
import requests

from bench.secrets.cases import CASES, ROUTES, script
from bench.secrets.refusals import before_the_end, outages, refused, turned_away
from chat.access import hash_of
from tests.leaks import Place, command_lines, files_below, redis_contents
from tests.servers import ROOT, RedisProcess, python
from tests.stack import Stack
from tests.upstream import ScriptedUpstream
from tests.waiting import eventually

__all__ = ["ACCIDENTS", "KEYS", "MODES", "SECRETS", "Scene"]

KEYS = {
    "ollama_cloud": "0a7f4c19e2d84b6fa3c5.OllamaCloud+Key/51b2==",
    "openrouter": "sk-or-v1-5d0c9b7e3f1a48d2b6e4c8a07f935d1e2b4c6a80",
    "opencode": "sk-opencode-Qw7ZtR2mX9vKc4LpYb6NhJ3sDf8GaE5u",
    "kimi": "sk-kimi-from-its-file-Uo4Ie8Aa2Yy6Ww0Bb3Nn7Mm",
}
REDIS_PASSWORD = "redis-password-7c1e5a9d3b8f2460"  # noqa: S105 - made up, and looked for
CALLER = "chatd-of-whoever-asks-8Yd3Kq6Wv1Rz5Tm0Xc"
LIMITED = "chatd-of-one-call-a-minute-2Jh7Pn4Bs9Lf6Gw"
SECRETS = {
    **KEYS,
    "the password of Redis": REDIS_PASSWORD,
    "the key of a caller": CALLER,
    "the key of another": LIMITED,
}

#: How calls end to which something happens while, or because, nobody answers.
ACCIDENTS = {
    "cancelled": "job_cancelled",
    "worker killed": "outcome_unknown",
    "refused": "upstream_unavailable",
    "no Redis": "redis_unavailable",
}

#: How a question gets to its upstream.
MODES = ("waiting", "job", "completion", "line of a batch")

#: Small enough that a refusal for size is cheap, and the least grace that a worker can have.
_SETTINGS = """log_level = "debug"
body_limit = "64KiB"
max_queued = 60
worker_grace_s = 10
"""
_REPORTS = ("html", "json", "jsonl", "csv", "junit")


class Scene:
    """chatd after every case at every route, as a call, a job, in batches and evaluations.

    ``errors`` is how each ended, ``answers`` the text of what a waiting caller got and what a tool
    would be called with, ``refusals`` what chatd itself refused; ``said`` is every byte
    that it answered over HTTP, ``told`` what its commands printed.
    """

    def __init__(self, folder: Path) -> None:
        self.errors: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.answers: dict[tuple[str, str], tuple[str, list[Any]]] = {}
        self.refusals: dict[str, str] = {}
        self.said: list[Place] = []
        self.told: list[Place] = []
        self.upstream = ScriptedUpstream()
        self.upstream.always(script)
        server = RedisProcess(folder / "redis")
        server.child.command += ["--requirepass", REDIS_PASSWORD]
        server.url = f"redis://:{REDIS_PASSWORD}@127.0.0.1:{server.port}/0"
        server.client = redis.Redis.from_url(server.url, decode_responses=True, protocol=2)
        self.stack = Stack(
            folder,
            {name: f"{self.upstream.url}/{name}" for name in ("ollama", *KEYS)},
            environ={
                "CHATD_API_KEY": CALLER,
                "OLLAMA_CLOUD_KEY": KEYS["ollama_cloud"],
                "OPENROUTER_API_KEY": KEYS["openrouter"],
                "OPENCODE_API_KEY": KEYS["opencode"],
                "KIMI_API_KEY": "",
            },
            settings=_SETTINGS,
            # What one case is refused must not close the way for the next.
            tail="\n".join(
                [
                    *(
                        f'[[chatd.providers.{name}.limits]]\nmatch = "*"\nper_model = true'
                        for name in ("ollama", *KEYS)
                    ),
                    f'[[chatd.keys]]\nname = "all"\nsha256 = "{hash_of(CALLER)}"\nadmin = true',
                    f'[[chatd.keys]]\nname = "one"\nsha256 = "{hash_of(LIMITED)}"',
                    "requests_per_minute = 1",
                ]
            ),
            redis=server,
        )
        # The stack names a key file that does not exist; Kimi, which comes last, gets one.
        self.key_file = folder / "kimi.env"
        self.key_file.write_text(f"KIMI_API_KEY={KEYS['kimi']}\n", "utf-8")
        before, after = self.stack.config_file.read_text("utf-8").rsplit("/nonexistent", 1)
        self.stack.config_file.write_text(before + str(self.key_file) + after, "utf-8")
        self.stack.http.headers["Authorization"] = f"Bearer {CALLER}"
        self.stack.http.hooks["response"].append(self._heard)

    def _heard(self, reply: requests.Response, **_: Any) -> None:
        head = "\n".join(f"{name}: {value}" for name, value in reply.headers.items())
        place = f"answer to {reply.request.method} {reply.request.path_url}"
        self.said.append((place, head.encode() + reply.content))

    def ask(self) -> None:
        """Every case at every route, in every way to ask."""
        calls = [(route, name) for route in ROUTES for name in CASES]
        with ThreadPoolExecutor(12) as pool:
            for work in (self._call, self._completions, self._submit):
                list(pool.map(lambda call, work=work: work(*call), calls))
                self._forget_refusals()
            list(pool.map(self._cancel, ROUTES))
        self._batch()
        self._forget_refusals()
        self._evaluation()
        self._forget_refusals()
        self.refusals |= refused(self.stack) | turned_away(self.stack, LIMITED)

    def break_down(self) -> None:
        """What happens when a part fails; afterwards all of it runs again, but for the upstream."""
        with ThreadPoolExecutor(12) as pool:
            lost = [pool.submit(self._call, route, "worker killed") for route in ROUTES]
            eventually(lambda: self._unanswered("worker killed") == len(ROUTES))
            for worker in self.stack.workers.values():
                worker.kill()
                worker.start()
            for call in lost:
                call.result(60)
            self.refusals |= outages(self.stack)
            self.upstream.close()
            list(pool.map(lambda route: self._call(route, "refused"), ROUTES))
            self.stack.redis.kill()
            list(pool.map(lambda route: self._call(route, "no Redis"), ROUTES))
        self.stack.redis.start()
        eventually(self.stack.ready, within_s=60)
        for path in ("/v1/chat/providers", "/openapi.json", "/health", "/ready", "/nowhere"):
            self.stack.http.get(self.stack.url + path, timeout=30)
        for path in ("/metrics", "/v1/models", "/v1/jobs?limit=100", "/v1/batches", "/v1/files"):
            self.stack.http.get(self.stack.url + path, timeout=30)
        for command in ("check", "providers", "audit"):
            self.chatd(command)
        self.refusals |= before_the_end(self.stack)

    def _forget_refusals(self) -> None:
        """What was refused for a while is to be sent once more."""
        client = self.stack.redis.client
        client.delete(*client.keys("budget:*"))

    def _request(self, route: str, name: str) -> tuple[str, str, dict[str, Any]]:
        limit = CASES[name].timeout_s if name in CASES else 60
        return "hello", f"{ROUTES[route][0]}case/{name}", {"timeout_s": limit}

    def _call(self, route: str, name: str, **headers: str) -> None:
        question, model, fields = self._request(route, name)
        reply = self.stack.chat(question, model, headers=headers, **fields).json()
        self.errors[route, name, "waiting"] = reply.get("error") or {"code": None}
        if "content" in reply:
            self.answers[route, name] = (reply["content"], reply["tool_calls"])

    def _completions(self, route: str, name: str) -> None:
        question, model, fields = self._request(route, name)
        body = {"model": model, "messages": [{"role": "user", "content": question}], **fields}
        url = f"{self.stack.url}/v1/chat/completions"
        reply = self.stack.http.post(url, json=body, timeout=300).json()
        self.errors[route, name, "completion"] = reply.get("error") or {"code": None}

    def _submit(self, route: str, name: str) -> None:
        question, model, fields = self._request(route, name)
        record = self.stack.ended(self.stack.submit(question, model, **fields))
        self.errors[route, name, "job"] = record["error"] or {"code": None}

    def _cancel(self, route: str) -> None:
        """Join a call that waits, so as to learn its job's id, and cancel that."""
        question, model, fields = self._request(route, "cancelled")
        key = {"Idempotency-Key": f"cancel-{route}"}
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(self._call, route, "cancelled", **key)
            eventually(lambda: self._unanswered("cancelled", ROUTES[route][1]) == 1)
            joined = self.stack.chat(
                question, model, headers={**key, "Prefer": "respond-async"}, **fields
            )
            path = f"{self.stack.url}{joined.headers['Location']}/cancel"
            self.stack.http.post(path, timeout=30)
            call.result(60)

    def _unanswered(self, name: str, path: str = "") -> int:
        return sum(
            request.json()["model"] == f"case/{name}" and request.path.startswith(path)
            for request in self.upstream.requests
        )

    def _batch(self) -> None:
        """All cases at all routes as the lines of one batch, and its two files of results."""
        lines = []
        for route in ROUTES:
            for name in CASES:
                question, model, fields = self._request(route, name)
                messages = [{"role": "user", "content": question}]
                lines.append(
                    {
                        "custom_id": f"{route}/{name}",
                        "method": "POST",
                        "url": "/v1/chat",
                        "body": {"model": model, "messages": messages, **fields},
                    }
                )
        file = self.stack.folder / "batch.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        batch_id = self.chatd("batch", "submit", str(file), "--endpoint", "/v1/chat").split()[0]
        batch = self._get(f"/v1/batches/{batch_id}").json()
        for which in ("output_file_id", "error_file_id"):
            text = self._get(f"/v1/files/{batch[which]}/content").text
            for line in map(json.loads, text.splitlines()):
                route, _, name = line["custom_id"].partition("/")
                body = (line["response"] or {}).get("body", {})
                found = line["error"] or body.get("error") or {"code": None}
                self.errors[route, name, "line of a batch"] = found

    def _evaluation(self) -> None:
        """Models that answer, repeat the key or refuse it, a judge that repeats it, all reports."""
        models = [
            f"{prefix}case/{name}"
            for prefix, _ in ROUTES.values()
            for name in ("good", "repeated", "key refused")
        ]
        suite = {
            "name": "secrets",
            "dataset": "dataset.jsonl",
            "models": models,
            "scorers": [
                {"type": "contains"},
                {"type": "judge", "model": "kimi/case/repeated", "rubric": "Is it fine?"},
                {"type": "judge", "model": "kimi/case/half the key", "rubric": "?", "name": "no"},
            ],
        }
        folder = self.stack.folder
        samples = [{"id": f"{n}", "prompt": "hello", "expected": "fine"} for n in range(2)]
        text = "".join(json.dumps(sample) + "\n" for sample in samples)
        (folder / "dataset.jsonl").write_text(text, "utf-8")
        (folder / "suite.toml").write_text(_toml(suite), "utf-8")
        report = ("--report", str(folder / "report.html"))
        evaluation_id = self.chatd("eval", "run", str(folder / "suite.toml"), *report).split()[0]
        for kind in _REPORTS:
            self.chatd("eval", "report", evaluation_id, "--format", kind)
            self._get(f"/v1/evaluations/{evaluation_id}/report?format={kind}")
        self._get(f"/v1/evaluations/{evaluation_id}")

    def _get(self, path: str) -> requests.Response:
        reply = self.stack.http.get(self.stack.url + path, timeout=60)
        assert reply.status_code == 200, reply.text[:500]
        return reply

    def chatd(self, *arguments: str) -> str:
        """A command, run to its end; what it printed counts as a place."""
        run = subprocess.run(
            python("-m", "cli", *arguments),
            env={**os.environ, **self.stack.environ, "no_proxy": "*"},
            cwd=ROOT,
            capture_output=True,
            check=False,
            timeout=300,
        )
        words = " ".join(word for word in arguments if "/" not in word)
        self.told.append((f"output of chatd {words}", run.stdout + run.stderr))
        return run.stdout.decode()

    def codes(self) -> set[str]:
        """The codes of all errors that came up."""
        ended = {str(error["code"]) for error in self.errors.values() if error["code"]}
        return ended | set(self.refusals.values())

    def places(self) -> dict[str, list[Place]]:
        """Everything that there is to search, by kind.

        Of the files, only the two that hold secrets are left out.
        """
        stack = self.stack
        files = list(files_below(stack.folder, but=[stack.config_file, self.key_file]))
        children = (stack.redis.child, stack.api, stack.keeper, *stack.workers.values())
        return {
            "logs": [place for place in files if place[0].endswith(".log")],
            "append-only files of Redis": [place for place in files if "appendonlydir" in place[0]],
            "files of data_dir, reports": [
                place
                for place in files
                if not place[0].endswith(".log") and "appendonlydir" not in place[0]
            ],
            "Redis, each key read and dumped": list(redis_contents(stack.redis.url)),
            "answers over HTTP": [place for place in self.said if "/metrics" not in place[0]],
            "metrics": [place for place in self.said if "/metrics" in place[0]],
            "output of commands": self.told,
            "command lines": list(command_lines(child.pid for child in children)),
        }


def _toml(suite: dict[str, Any]) -> str:
    """What JSON and TOML write alike is written as JSON."""
    lines = [f"{name} = {json.dumps(part)}" for name, part in suite.items() if name != "scorers"]
    for scorer in suite["scorers"]:
        lines += ["[[scorers]]", *(f"{name} = {json.dumps(part)}" for name, part in scorer.items())]
    return "\n".join(lines) + "\n"
