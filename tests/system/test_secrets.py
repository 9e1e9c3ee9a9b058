"""A key reaches its own upstream and no other place, whatever goes wrong on the way.

All five providers are registered, each with a key of its own, at an upstream that answers in every
way an upstream can and repeats the key wherever it finds room for it. Every process logs in full.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import quote

import pytest
import redis

from chat.errors import UpstreamError, error_classes
from tests.leaks import Place, command_lines, files_below, leaks, redis_contents, spellings
from tests.servers import ROOT, RedisProcess, python
from tests.stack import Stack
from tests.upstream import Answer, End, ScriptedUpstream
from tests.waiting import eventually

KEYS = {
    "ollama_cloud": "0a7f4c19e2d84b6fa3c5.OllamaCloud+Key/51b2==",
    "openrouter": "sk-or-v1-5d0c9b7e3f1a48d2b6e4c8a07f935d1e2b4c6a80",
    "opencode": "sk-opencode-Qw7ZtR2mX9vKc4LpYb6NhJ3sDf8GaE5u",
    "kimi": "sk-kimi-from-its-file-Uo4Ie8Aa2Yy6Ww0Bb3Nn7Mm",
}
REDIS_PASSWORD = "redis-password-7c1e5a9d3b8f2460"
SECRETS = {**KEYS, "the password of Redis": REDIS_PASSWORD}

#: What stands before a model id, and the path at which its upstream is then called.
ROUTES = {
    "ollama": ("", "/ollama/api/chat"),
    "ollama_cloud": ("ollama_cloud/", "/ollama_cloud/api/generate"),
    "openrouter": ("openrouter/", "/openrouter/chat/completions"),
    "opencode": ("opencode/", "/opencode/chat/completions"),
    "opencode-go": ("opencode-go/", "/opencode/go/chat/completions"),
    "kimi": ("kimi/", "/kimi/chat/completions"),
}

NEVER = threading.Event()


@dataclass(frozen=True)
class Case:
    """One way to answer ``said``, a sentence with the Authorization header in it.

    ``code`` is what chatd makes of it, except at the routes in ``others``.
    """

    code: str | None
    answer: Callable[[str], Answer]
    others: dict[str, str] = field(default_factory=dict)
    timeout_s: float = 60


def good(_said):
    """An answer in every provider's protocol at once."""
    message = {"role": "assistant", "content": "fine"}
    counts = {"prompt_eval_count": 1, "eval_count": 1, "done": True, "done_reason": "stop"}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return Answer.json({"message": message, "response": "fine", "choices": choices, **counts})


def error(status, kind="error", **headers):
    """An error answer as JSON."""
    return lambda said: Answer.json(
        {"error": {"type": kind, "message": said, "param": said}},
        status,
        {"x-you-sent": said, **headers},
    )


def text(status, body):
    """An answer that is no JSON."""
    return lambda said: Answer.of(body.replace("SAID", said).encode(), status)


def broken(rest, end=End.CLOSE):
    """A 200 that ends badly."""
    head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    return lambda said: Answer.raw((head + rest.replace("SAID", said)).encode(), end)


def redirect(said):
    """To where somebody would like to have the key."""
    place = f"http://127.0.0.1:1/elsewhere?said={quote(said, safe='')}"
    return Answer.of(said.encode(), 302, {"location": place})


CASES = {
    "good": Case(None, good),
    "rejected": Case("upstream_rejected", error(400)),
    "key refused": Case("upstream_auth", error(401)),
    "account empty": Case("quota_exhausted", error(402)),
    "quota used up": Case(
        "quota_exhausted",
        error(403, "weekly usage limit, key limit exceeded"),
        dict.fromkeys(("opencode", "opencode-go"), "upstream_auth"),
    ),
    "filtered": Case(
        "upstream_rejected",
        error(400, "content_filter content_policy_violation"),
        dict.fromkeys(("openrouter", "kimi"), "content_filtered"),
    ),
    "model unknown": Case("upstream_not_found", error(404)),
    "too many": Case("rate_limited", error(429, **{"retry-after": "7200"})),
    "too late": Case("upstream_timeout", error(504)),
    "failed": Case("upstream_unavailable", text(500, "SAID")),
    "page": Case("upstream_unavailable", text(503, "<title>SAID</title><p>SAID")),
    "error in 200": Case(
        "upstream_auth", lambda said: Answer.json({"error": {"code": 401, "message": said}})
    ),
    "not JSON": Case("upstream_protocol", text(200, "SAID")),
    "wrong types": Case(
        "upstream_protocol",
        lambda said: Answer.json({"choices": said, "message": said, "response": [said]}),
    ),
    "redirect": Case("upstream_protocol", redirect),
    "not HTTP": Case("upstream_protocol", lambda said: Answer.raw(said.encode() + b"\r\n\r\n")),
    "bad header": Case("upstream_protocol", broken("X SAID\r\n\r\nSAID")),
    "bad chunk": Case("upstream_protocol", broken("Transfer-Encoding: chunked\r\n\r\nSAID\r\n")),
    "cut": Case("upstream_unavailable", broken("Content-Length: 999\r\n\r\nSAID")),
    "reset": Case("upstream_unavailable", broken("Content-Length: 999\r\n\r\nSAID", End.RESET)),
    "silent": Case("deadline_exceeded", lambda _: Answer.raw(NEVER), timeout_s=1),
}
#: How calls end to which something happens while, or because, nobody answers.
ACCIDENTS = {
    "cancelled": "job_cancelled",
    "worker killed": "outcome_unknown",
    "refused": "upstream_unavailable",
    "no Redis": "redis_unavailable",
}


def script(request):
    """The answer of the case that the model's name asks for; to any other, silence."""
    said = f"you sent {request.headers.get('authorization', 'nothing')}"
    case = CASES.get(request.json()["model"].removeprefix("case/"))
    return Answer.raw(NEVER) if case is None else case.answer(said)


class Scene:
    """chatd after every case at every route, with a caller who waits and as a job, and accidents.

    ``errors`` is how each ended; ``said`` is every byte that chatd answered over HTTP.
    """

    def __init__(self, folder):
        self.errors: dict[tuple[str, str, str], dict[str, object]] = {}
        self.said: list[Place] = []
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
                "OLLAMA_CLOUD_KEY": KEYS["ollama_cloud"],
                "OPENROUTER_API_KEY": KEYS["openrouter"],
                "OPENCODE_API_KEY": KEYS["opencode"],
                "KIMI_API_KEY": "",
            },
            settings='log_level = "debug"',
            # What one case is refused must not close the way for the next.
            tail="\n".join(
                f'[[chatd.providers.{name}.limits]]\nmatch = "*"\nper_model = true'
                for name in ("ollama", *KEYS)
            ),
            redis=server,
        )
        # The stack names a key file that does not exist; Kimi, which comes last, gets one.
        self.key_file = folder / "kimi.env"
        self.key_file.write_text(f"KIMI_API_KEY={KEYS['kimi']}\n", "utf-8")
        before, after = self.stack.config_file.read_text("utf-8").rsplit("/nonexistent", 1)
        self.stack.config_file.write_text(before + str(self.key_file) + after, "utf-8")
        self.stack.http.hooks["response"].append(self._heard)

    def _heard(self, reply, **_):
        head = "\n".join(f"{name}: {value}" for name, value in reply.headers.items())
        self.said.append((f"answer to {reply.request.path_url}", head.encode() + reply.content))

    def play(self):
        """Everything that can go wrong; afterwards all of it runs again, but for the upstream."""
        calls = [(route, name) for route in ROUTES for name in CASES]
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(lambda call: self._call(*call), calls))
            # What was refused for a while is to be sent once more.
            self.stack.redis.client.delete(*self.stack.redis.client.keys("budget:*"))
            list(pool.map(lambda call: self._submit(*call), calls))
            list(pool.map(self._cancel, ROUTES))
            lost = [pool.submit(self._call, route, "worker killed") for route in ROUTES]
            eventually(lambda: self._unanswered("worker killed") == len(ROUTES))
            for worker in self.stack.workers.values():
                worker.kill()
                worker.start()
            for call in lost:
                call.result(60)
            self.upstream.close()
            list(pool.map(lambda route: self._call(route, "refused"), ROUTES))
            self.stack.redis.kill()
            list(pool.map(lambda route: self._call(route, "no Redis"), ROUTES))
        self.stack.redis.start()
        eventually(self.stack.ready, within_s=60)
        for path in ("/v1/chat/providers", "/openapi.json", "/health", "/ready", "/nowhere"):
            self.stack.http.get(self.stack.url + path, timeout=30)

    def _request(self, route, name):
        limit = CASES[name].timeout_s if name in CASES else 60
        return "hello", f"{ROUTES[route][0]}case/{name}", {"timeout_s": limit}

    def _call(self, route, name, **headers):
        question, model, fields = self._request(route, name)
        reply = self.stack.chat(question, model, headers=headers, **fields).json()
        self.errors[route, name, "waiting"] = reply.get("error") or {"code": None}

    def _submit(self, route, name):
        question, model, fields = self._request(route, name)
        record = self.stack.ended(self.stack.submit(question, model, **fields))
        self.errors[route, name, "job"] = record["error"] or {"code": None}

    def _cancel(self, route):
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

    def _unanswered(self, name, path=""):
        return sum(
            request.json()["model"] == f"case/{name}" and request.path.startswith(path)
            for request in self.upstream.requests
        )

    def printed(self):
        """What the commands print that look at keys."""
        for command in ("check", "providers"):
            run = subprocess.run(
                python("-m", "cli", command),
                env={**os.environ, **self.stack.environ},
                cwd=ROOT,
                capture_output=True,
                check=True,
                timeout=60,
            )
            yield f"output of chatd {command}", run.stdout + run.stderr

    def files(self):
        """Logs, append-only files, ``data_dir``: everything but the two files that hold secrets."""
        return files_below(self.stack.folder, but=[self.stack.config_file, self.key_file])

    def commands(self):
        """Redis, keeper, workers and front end with its children."""
        stack = self.stack
        children = (stack.redis.child, stack.api, stack.keeper, *stack.workers.values())
        return command_lines(child.pid for child in children)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    scene = Scene(tmp_path_factory.mktemp("secrets"))
    try:
        scene.stack.start()
        scene.play()
        yield scene
    finally:
        scene.stack.stop()
        scene.upstream.close()


def test_every_upstream_gets_its_own_key_and_no_other(scene):
    """So that the rest of this file searches for what was really sent."""
    sent = {
        (request.path, request.headers.get("authorization")) for request in scene.upstream.requests
    }

    assert sent == {
        (path, f"Bearer {KEYS[path.split('/')[1]]}" if name != "ollama" else None)
        for name, (_, path) in ROUTES.items()
    }


def test_everything_has_gone_wrong_everywhere(scene):
    """Every kind of upstream error, at every route, with a caller who waits and as a job."""
    expected = {
        (route, name, mode): case.others.get(route, case.code)
        for route in ROUTES
        for name, case in CASES.items()
        for mode in ("waiting", "job")
    }
    expected |= {
        (route, name, "waiting"): code for route in ROUTES for name, code in ACCIDENTS.items()
    }
    found = {call: error["code"] for call, error in scene.errors.items()}

    assert found == expected
    assert set(found.values()) >= {c.code for c in error_classes() if issubclass(c, UpstreamError)}


@pytest.mark.parametrize("name", ["rejected", "key refused", "failed", "page", "redirect"])
def test_what_an_upstream_repeats_is_masked(scene, name):
    """It is quoted in the message, since it may say what is wrong, but without the key."""
    for route in ROUTES:
        said = "you sent nothing" if route == "ollama" else "you sent Bearer ***"

        assert f'"{said}"' in scene.errors[route, name, "waiting"]["message"]
        assert f'"{said}"' in scene.errors[route, name, "job"]["message"]


@pytest.mark.parametrize(
    ("places", "one"),
    [
        (lambda scene: redis_contents(scene.stack.redis.url), "redis stream audit"),
        (Scene.files, "file worker-kimi.log"),
        (lambda scene: scene.said, "answer to /openapi.json"),
        (Scene.printed, "output of chatd check"),
        (Scene.commands, None),
    ],
    ids=["Redis", "files", "answers", "printed", "command lines"],
)
def test_no_secret_is_anywhere(scene, places, one):
    """Neither whole nor in part, neither plain nor encoded."""
    found = list(places(scene))

    assert len(found) >= 2
    assert one is None or one in dict(found)
    assert leaks(SECRETS, found) == []


def test_the_files_searched_are_those_that_matter(scene):
    """Every process has logged, Redis has its append-only file, the workers their locks."""
    found = {name for name, content in scene.files() if content}

    assert {f"file {name}.log" for name in ("api", "keeper", "worker-kimi")} <= found
    assert "file data/workers/kimi-1.lock" in found
    assert any("appendonlydir" in name and "incr" in name for name in found)


@pytest.mark.parametrize("spelling", spellings(KEYS["ollama_cloud"]))
def test_the_search_would_have_found_one(scene, spelling):
    """A secret put into each kind of value, a log and an answer, cut short, comes to light."""
    secret = f"planted+secret/{spelling}/0123456789abcdef"
    planted = "some text " * 20 + spellings(secret)[spelling].decode()[:-4] + " and more"
    client = scene.stack.redis.client
    puts = {
        "string": lambda key: client.set(key, planted),
        "hash": lambda key: client.hset(key, "field", planted),
        "list": lambda key: client.rpush(key, planted),
        "set": lambda key: client.sadd(key, planted),
        "zset": lambda key: client.zadd(key, {planted: 1}),
        "stream": lambda key: client.xadd(key, {"field": planted}),
    }
    for kind, put in puts.items():
        put(f"planted:{kind}")
    with (scene.stack.folder / "keeper.log").open("a", encoding="utf-8") as log:
        log.write(planted + "\n")
    wanted = {"it": secret}
    in_redis = leaks(wanted, redis_contents(scene.stack.redis.url))
    in_files = leaks(wanted, scene.files())
    client.delete(*(f"planted:{kind}" for kind in puts))

    assert {f"it in redis {kind} planted:{kind} ({spelling})" for kind in puts} <= set(in_redis)
    assert f"it in file keeper.log ({spelling})" in in_files
    assert any("appendonlydir" in leak for leak in in_files)
