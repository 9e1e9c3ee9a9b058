"""nginx before chatd, with nginx' real timeouts: what passes through it, and what it costs.

    python -m bench.gateway [--quick]

A real nginx with the configuration of `chatd gateway`, and a plain `proxy_pass` beside it, before a
real chatd. A chat of 75 s is asked through both; meanwhile jobs, a batch through OpenAI's client
and 200 callers at once go through the gateway. Then the same chats are timed directly and through
it, in turns. Prints what was counted and the rules it checked; the exit code is 1 when a rule was
broken. ``--quick`` has chats of 2 s, and leaves out what nginx does after a minute.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import openai
import requests

from bench.load import Result, run
from bench.scenes.scene import Report
from bench.upstream import Conduct, Upstream
from tests.nginx import Nginx
from tests.stack import Stack
from tests.waiting import eventually

__all__ = ["main"]

_SLOW_S = 75.0
_JOBS, _LINES, _CALLERS = 100, 1000, 200
_ROUNDS = 20


@contextmanager
def _running(slow_s: float) -> Iterator[tuple[Stack, Upstream, Nginx]]:
    def conduct(question: str) -> Conduct:
        return Conduct(slow_s if question.startswith("slow") else 0.0)

    upstream = Upstream(conduct=conduct).start()
    with tempfile.TemporaryDirectory(prefix="chatd-gateway-") as name:
        folder = Path(name)
        stack = Stack(folder / "chatd", {"ollama": upstream.url}, concurrency=32)
        try:
            stack.start()
            with Nginx(folder / "nginx", stack.url, stack.config, patient=True) as nginx:
                yield stack, upstream, nginx
        finally:
            upstream.release()
            stack.stop()
            upstream.stop()


def _slow(url: str, tag: str) -> tuple[int, str, float]:
    """A chat that takes long: its status, its answer and how long it took."""
    began = time.monotonic()
    body = {"model": "echo", "messages": [{"role": "user", "content": f"slow {tag}"}]}
    reply = requests.post(f"{url}/v1/chat", data=json.dumps(body), timeout=300)
    content = reply.json()["content"] if reply.status_code == 200 else ""
    return reply.status_code, content, time.monotonic() - began


def _jobs(report: Report, nginx: Nginx) -> None:
    """Submitted, then each waited for with a long poll."""
    with requests.Session() as http:
        http.trust_env = False
        expected = [f"echo: job {number}" for number in range(_JOBS)]
        places = []
        for number in range(_JOBS):
            body = {"model": "echo", "messages": [{"role": "user", "content": f"job {number}"}]}
            places.append(http.post(f"{nginx.url}/v1/jobs", json=body).headers["Location"])
        records = [http.get(f"{nginx.url}{place}?wait=60").json() for place in places]
    found = [(record["response"] or {}).get("content") for record in records]
    report.rule(f"{_JOBS} jobs submitted, polled and answered right", found == expected)


def _batch(report: Report, nginx: Nginx) -> None:
    """Uploaded, run and downloaded with OpenAI's client."""
    began = time.monotonic()
    text = "".join(
        json.dumps(
            {
                "custom_id": str(number),
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {
                    "model": "echo",
                    "messages": [{"role": "user", "content": f"line {number}"}],
                },
            }
        )
        + "\n"
        for number in range(_LINES)
    )
    with openai.OpenAI(base_url=f"{nginx.url}/v1", api_key="none", max_retries=0) as client:
        file = client.files.create(file=("in.jsonl", io.BytesIO(text.encode())), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )

        def results() -> str | None:
            return client.batches.retrieve(batch.id).output_file_id if over() else None

        def over() -> bool:
            return client.batches.retrieve(batch.id).status == "completed"

        output = eventually(results, within_s=300, what="the batch is completed")
        lines = [json.loads(line) for line in client.files.content(output or "").text.splitlines()]
    found = {
        line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"]
        for line in lines
    }
    right = found == {str(number): f"echo: line {number}" for number in range(_LINES)}
    report.say(f"seconds for a batch of {_LINES} lines", f"{time.monotonic() - began:.1f}")
    report.rule(f"{_LINES} lines uploaded, run and downloaded, each right", right)


def _at_once(report: Report, stack: Stack, upstream: Upstream, nginx: Nginx) -> None:
    """Callers who all wait at the same moment."""
    before = stack.store.counters()["accepted"]
    upstream.hold()
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(run, nginx.url, count=_CALLERS, clients=_CALLERS, tag="at once")
        eventually(lambda: stack.store.counters()["accepted"] >= before + _CALLERS, within_s=60)
        upstream.release()
        result = load.result()
    report.rule(f"{_CALLERS} callers waited at once and were answered", result.right == _CALLERS)


def _cost(report: Report, stack: Stack, nginx: Nginx) -> None:
    """The same chats directly and through the gateway, in turns; medians over all of them."""
    rows, wrong = [], 0
    for clients, calls in ((1, 10), (16, 48)):
        ways: dict[str, list[Result]] = {stack.url: [], nginx.url: []}
        for number in range(_ROUNDS):
            for url, results in ways.items():
                tag = f"{url} {clients} {number}"
                results.append(run(url, count=calls, clients=clients, tag=tag))
        wrong += sum(one.sent - one.right for results in ways.values() for one in results)
        direct, through = (
            median(ms for one in results for ms in one.latencies_ms) for results in ways.values()
        )
        row = (direct, through, through - direct)
        rows.append((clients, *(f"{ms:.1f}" for ms in row), f"{through / direct:.2f}"))
    report.table(("callers", "direct, median ms", "through nginx", "added", "ratio"), rows)
    report.rule("every one of these chats was answered right", not wrong)


def main(argv: Sequence[str]) -> int:
    """All of it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.gateway")
    parser.add_argument("--quick", action="store_true", help="chats of 2 s instead of 75 s")
    quick = parser.parse_args(argv).quick
    report = Report()
    with _running(2.0 if quick else _SLOW_S) as (stack, upstream, nginx):
        print("through nginx with its own timeouts", flush=True)
        with ThreadPoolExecutor(2) as pool:
            through = pool.submit(_slow, nginx.url, "through the gateway")
            plain = pool.submit(_slow, nginx.control, "through a plain proxy")
            _jobs(report, nginx)
            _batch(report, nginx)
            _at_once(report, stack, upstream, nginx)
            status, content, seconds = through.result()
            report.say("a long chat through the gateway", f"{status} after {seconds:.1f} s")
            report.rule("it has its answer", content == "echo: slow through the gateway")
            status, _, seconds = plain.result()
            report.say("the same through a plain proxy", f"{status} after {seconds:.1f} s")
        if not quick:
            given_up = status == 504 and seconds < _SLOW_S
            report.rule("nginx by itself gave up, after its own 60 s", given_up)
        _cost(report, stack, nginx)
        acct = stack.balanced()
        states = {name: acct.get(name, 0) for name in ("accepted", "failed", "cancelled")}
        report.say("the books", ", ".join(f"{count} {name}" for name, count in states.items()))
        report.rule("nothing failed", not states["failed"])
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
