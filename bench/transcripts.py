"""What a caller sees: a curl transcript of every error code of the HTTP contract.

    python -m bench.transcripts

chatd's processes, their Redis and a scripted upstream are started for it; every answer comes from
them and every command is the one that was run. Status and code are compared with the table of the
front end. The exit code is 1 when one differs or a code of the table is neither shown nor named at
the end, and 2 without curl.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chat.errors import error_classes
from chat.formats.errors import STATUS
from chat.jobs import new_id, new_job_id
from tests.stack import Stack
from tests.upstream import Answer, End, Request, ScriptedUpstream
from tests.waiting import eventually

#: Every code there is, with its status. The last three belong to no class of an error: they are
#: Flask's own refusals and a fault of chatd itself.
TABLE = {cls.code: STATUS[cls] for cls in error_classes()} | {
    "not_found": 404,
    "method_not_allowed": 405,
    "internal_error": 500,
}
#: Codes that no caller can bring about, and why.
NOT_PROVOKED = {
    "internal_error": "a fault of chatd's own, and none is known",
    "storage_unavailable": "the disk below data_dir would have to be full",
}
SHOWN_HEADERS = (
    "allow",
    "location",
    "preference-applied",
    "retry-after",
    "server-timing",
    "x-request-id",
)
NEVER = threading.Event()
SETTINGS = """
timeout_s = 2
worker_grace_s = 10
max_queued = 4
body_limit = "64KiB"
"""
#: The keys of whoever runs this stay out of it.
NOT_REGISTERED = "\n".join(
    f'[chatd.providers.{name}]\nkey_file = ""'
    for name in ("ollama_cloud", "openrouter", "opencode")
)
KEYS = {
    "KIMI_API_KEY": "sk-kimi-made-up",
    "OLLAMA_CLOUD_KEY": "",
    "OPENROUTER_API_KEY": "",
    "OPENCODE_API_KEY": "",
}
#: One budget for each model, so that a refusal for an hour closes none of the others.
BUDGETS = "".join(
    f'[[chatd.providers.{name}.limits]]\nmatch = "*"\nper_model = true\n'
    for name in ("ollama", "kimi")
)


def _error(message: str, status: int, **headers: str) -> Answer:
    return Answer.json({"error": message}, status, headers)


def _kimi_error(kind: str, message: str, status: int) -> Answer:
    return Answer.json({"error": {"type": kind, "message": message}}, status)


#: What the upstream answers to a model of that name.
ANSWERS = {
    "qwen3:8b": Answer.json(
        {
            "message": {"role": "assistant", "content": "Hello!"},
            "done": True,
            "done_reason": "stop",
            "prompt_eval_count": 9,
            "eval_count": 3,
        }
    ),
    "strict": _error("registry.ollama.ai/library/strict does not support tools", 400),
    "private": _error("unauthorized", 401),
    "missing": _error("model 'missing' not found", 404),
    "popular": _error("too many requests", 429, **{"Retry-After": "3600"}),
    "busy": _error("server busy, please try again", 503),
    "cut-off": Answer.cut(b'{"message": ', 6, by=End.RESET),
    "web-page": Answer.of(b"<title>It works!</title>", headers={"Content-Type": "text/html"}),
    "slow": Answer.raw(NEVER),
    "endless": Answer.raw(NEVER),
    "k2-used-up": _kimi_error("access_terminated_error", "You've reached your usage limit", 403),
    "k2-filtered": _kimi_error("content_filter", "considered high risk", 400),
}


def script(request: Request) -> Answer:
    """The answer by the model's name."""
    return ANSWERS[request.json()["model"]]


@dataclass
class Transcripts:
    """Runs curl, shows what came back, and compares it with the table."""

    program: str
    url: str
    folder: Path
    shown: set[str] = field(default_factory=set)
    broken: list[str] = field(default_factory=list)

    def error(
        self,
        code: str,
        why: str,
        path: str,
        *options: str,
        meanwhile: Callable[[], object] | None = None,
    ) -> None:
        """A call that ends in ``code``; ``meanwhile`` happens while it waits."""
        status = TABLE[code]
        print(f"-- {status} {code}: {why}", flush=True)
        found, headers, body = self._curl(path, options, meanwhile)
        told = body["error"]["code"] if "error" in body else None
        if (found, told) != (status, code):
            self._differs(f"{status} {code}", f"{found} {told}")
        elif status in (429, 503) and "retry-after" not in headers:
            self._differs(f"{status} {code} with Retry-After", "no Retry-After")
        self.shown.add(code)

    def fine(self, status: int, why: str, path: str, *options: str) -> dict[str, Any]:
        """A call that ends well; its body."""
        print(f"-- {status}: {why}", flush=True)
        found, _, body = self._curl(path, options, None)
        if found != status:
            self._differs(str(status), str(found))
        return body

    def _curl(
        self, path: str, options: tuple[str, ...], meanwhile: Callable[[], object] | None
    ) -> tuple[int, dict[str, str], dict[str, Any]]:
        command = ["curl", "-si", self.url + path, *options]
        print(f"$ {shlex.join(command)}", flush=True)
        with subprocess.Popen(
            [self.program, *command[1:]],
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            # A proxy in the environment is for the way out, and would be asked here as well.
            env={**os.environ, "no_proxy": "*"},
        ) as curl:
            if meanwhile is not None:
                meanwhile()
            output, _ = curl.communicate(timeout=120)
        head, _, text = output.partition("\n\n")
        while head.startswith("HTTP/1.1 100"):
            head, _, text = text.partition("\n\n")
        line, *lines = head.splitlines()
        headers = dict(header.lower().split(": ", 1) for header in lines)
        shown = [header for header in lines if header.lower().split(":")[0] in SHOWN_HEADERS]
        print("\n".join([line, *shown, "", text, ""]), flush=True)
        if "x-request-id" not in headers:
            self._differs("an X-Request-Id", "none")
        body: dict[str, Any] = json.loads(text)
        return int(line.split(" ")[1]), headers, body

    def _differs(self, expected: str, found: str) -> None:
        print(f"BROKEN expected {expected}, got {found}\n", flush=True)
        self.broken.append(f"expected {expected}, got {found}")


def chat(model: str, content: str = "Say hello.", **fields: Any) -> str:
    """A body of ``POST /v1/chat``."""
    messages = [{"role": "user", "content": content}]
    return json.dumps({"model": model, "messages": messages, **fields})


def answers(show: Transcripts) -> None:
    """What it looks like when all is well."""
    show.fine(200, "an answer", "/v1/chat", "-d", chat("qwen3:8b"))
    show.fine(202, "a job", "/v1/jobs", "-d", chat("qwen3:8b"))


def refusals(show: Transcripts) -> None:
    """What the front end refuses by itself."""
    body = '{"messages": [{"role": "user", "content": "Say hello."}]}'
    show.error("invalid_request", "the body has no model", "/v1/chat", "-d", body)
    show.error(
        "invalid_request", "an unknown field", "/v1/chat", "-d", chat("qwen3:8b", temprature=0)
    )
    (show.folder / "large.json").write_text(chat("qwen3:8b", "long " * 20_000), "utf-8")
    show.error("too_large", "body_limit is 64 KiB", "/v1/chat", "-d", "@large.json")
    key = ("-H", "Idempotency-Key: order-66")
    show.fine(200, "the first use of a key", "/v1/chat", *key, "-d", chat("qwen3:8b"))
    show.error(
        "idempotency_mismatch",
        "the same key with another body",
        "/v1/chat",
        *key,
        "-d",
        chat("qwen3:8b", "Say goodbye."),
    )
    show.error(
        "provider_not_registered",
        "Ollama Cloud has no key",
        "/v1/chat",
        "-d",
        chat("qwen3:8b:cloud"),
    )
    show.error("job_not_found", "no job has this id", f"/v1/jobs/{new_job_id()}")
    show.error(
        "result_expired",
        "the id is of 1970: a record of it would have been removed",
        "/v1/jobs/job_00000000000000000000000000",
    )
    show.error("file_not_found", "no file has this id", f"/v1/files/{new_id('file-')}")
    show.error("batch_not_found", "no batch has this id", f"/v1/batches/{new_id('batch_')}")
    show.error(
        "evaluation_not_found",
        "no evaluation has this id",
        f"/v1/evaluations/{new_id('eval_')}",
    )
    show.error("model_not_found", "no list has it", "/v1/models/nobody/knows-it")
    show.error("not_found", "no such path", "/v1/chats")
    show.error("method_not_allowed", "GET where only POST is", "/v1/chat")


def upstream_errors(show: Transcripts) -> None:
    """What an upstream answers."""
    for code, why, model in (
        ("upstream_rejected", "the upstream refused the request", "strict"),
        ("upstream_auth", "the upstream refused the key", "private"),
        ("upstream_not_found", "the default provider gets an unknown prefix whole", "missing"),
        ("rate_limited", "the upstream wants an hour, the job has two seconds", "popular"),
        ("quota_exhausted", "the week's quota is used up", "kimi/k2-used-up"),
        ("upstream_unavailable", "the upstream is overloaded", "busy"),
        ("upstream_unavailable", "the upstream cut the connection", "cut-off"),
        ("upstream_protocol", "something else listens at the base URL", "web-page"),
        ("content_filtered", "the upstream's moderation said no", "kimi/k2-filtered"),
    ):
        show.error(code, why, "/v1/chat", "-d", chat(model))
    show.error(
        "deadline_exceeded",
        "the job's own deadline",
        "/v1/chat",
        "-d",
        chat("slow", timeout_s=1),
    )
    show.error(
        "upstream_timeout",
        "timeout_s = 2 of the configuration bounds one call",
        "/v1/chat",
        "-d",
        chat("slow", timeout_s=30),
    )


def interventions(show: Transcripts, stack: Stack, upstream: ScriptedUpstream) -> None:
    """What happens to a job on its way."""
    call = ("-H", "Idempotency-Key: order-67", "-d", chat("slow", timeout_s=30))
    job = show.fine(202, "a call that goes on", "/v1/chat", "-H", "Prefer: respond-async", *call)
    show.fine(200, "and is cancelled", f"/v1/jobs/{job['id']}/cancel", "-X", "POST")
    show.error("job_cancelled", "whoever asks for it now", "/v1/chat", *call)

    def kill() -> None:
        eventually(
            lambda: any(request.json()["model"] == "endless" for request in upstream.requests),
            what="the call is upstream",
        )
        stack.workers["ollama"].kill()
        stack.workers["ollama"].start()

    show.error(
        "outcome_unknown",
        "the worker is killed (SIGKILL) in mid-call and started again",
        "/v1/chat",
        "-d",
        chat("endless", timeout_s=30),
        meanwhile=kill,
    )


def outages(show: Transcripts, stack: Stack) -> None:
    """What happens when a part of chatd is missing."""
    stack.store.drain("kimi")
    show.error("draining", "chatd drain kimi", "/v1/chat", "-d", chat("kimi/k2"))
    stack.store.resume("kimi")
    stack.workers["kimi"].stop()
    eventually(lambda: (stack.store.workers(["kimi"])["kimi"] or 0) > 10, what="the grace is over")
    show.error("no_worker", "worker_grace_s is 10 seconds", "/v1/chat", "-d", chat("kimi/k2"))
    for number in range(4):
        stack.submit(f"Question {number + 1}", "kimi/k2")
    show.error("queue_full", "four jobs wait, max_queued is 4", "/v1/jobs", "-d", chat("kimi/k2"))
    stack.redis.kill()
    show.error("redis_unavailable", "Redis is gone", "/v1/chat", "-d", chat("qwen3:8b"))


def run(curl: str, folder: Path) -> int:
    """All of it; 1 when something was not as the table says."""
    with ScriptedUpstream() as upstream:
        upstream.always(script)
        stack = Stack(
            folder / "chatd",
            {"ollama": upstream.url, "kimi": f"{upstream.url}/kimi"},
            environ=KEYS,
            settings=SETTINGS,
            tail=f"{NOT_REGISTERED}\n{BUDGETS}",
        )
        try:
            stack.start()
            show = Transcripts(curl, stack.url, folder)
            answers(show)
            refusals(show)
            upstream_errors(show)
            interventions(show, stack, upstream)
            outages(show, stack)
        finally:
            stack.stop()
    for code, why in NOT_PROVOKED.items():
        print(f"cannot be provoked: {TABLE[code]} {code}: {why}")
    for code in sorted(TABLE.keys() - show.shown - NOT_PROVOKED.keys()):
        show.broken.append(f"{code} is in the table and was not shown")
        print(f"BROKEN {show.broken[-1]}")
    print(
        f"{len(show.shown)} of {len(TABLE)} codes shown, {len(show.broken)} not as they should be"
    )
    return 1 if show.broken else 0


def main() -> int:
    """Show every code; the exit code."""
    curl = shutil.which("curl")
    if curl is None:
        print("curl is not on PATH; install it to see the transcripts", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        return run(curl, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
