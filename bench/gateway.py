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
from typing import Any

import openai
import requests

from bench.load import run
from bench.scenes.scene import Report
from bench.upstream import Conduct, Upstream
from tests.batches import request_line
from tests.nginx import Nginx, binary
from tests.stack import Stack
from tests.waiting import eventually

__all__ = ["main"]

_SLOW_S = 75.0
_JOBS, _LINES, _CALLERS = 100, 1000, 200
#: Callers, and how many chats they ask in a turn.
_TURNS, _OF = 20, ((1, 10), (16, 48))


@contextmanager
def _running(slow_s: float) -> Iterator[tuple[Stack, Upstream, Nginx]]:
    upstream = Upstream(conduct=lambda asked: Conduct(slow_s if asked == "slow" else 0.0)).start()
    with tempfile.TemporaryDirectory(prefix="chatd-gateway-") as folder:
        stack = Stack(Path(folder) / "chatd", {"ollama": upstream.url}, concurrency=32)
        try:
            stack.start()
            with Nginx(Path(folder) / "nginx", stack.url, stack.config, patient=True) as nginx:
                yield stack, upstream, nginx
        finally:
            upstream.release()
            stack.stop()
            upstream.stop()


def _chat(question: str) -> dict[str, Any]:
    return {"model": "echo", "messages": [{"role": "user", "content": question}]}


def _slow(url: str) -> tuple[int, str, float]:
    """A chat that takes long: its status, its body and how long it took."""
    began = time.monotonic()
    reply = requests.post(f"{url}/v1/chat", json=_chat("slow"), timeout=300)
    return reply.status_code, reply.text, time.monotonic() - began


def _jobs(report: Report, nginx: Nginx) -> None:
    """Submitted, then each waited for with a long poll."""
    with requests.Session() as http:
        http.trust_env = False
        submitted = [
            http.post(f"{nginx.url}/v1/jobs", json=_chat(f"job {number}")).headers["Location"]
            for number in range(_JOBS)
        ]
        records = [http.get(f"{nginx.url}{path}?wait=60").json() for path in submitted]
    found = [(record["response"] or {}).get("content") for record in records]
    right = found == [f"echo: job {number}" for number in range(_JOBS)]
    report.rule(f"{_JOBS} jobs submitted, polled and answered right", right)


def _batch(report: Report, nginx: Nginx) -> None:
    """Uploaded, run and downloaded with OpenAI's client."""
    began = time.monotonic()
    text = "".join(f"{request_line(str(number), 'echo')}\n" for number in range(_LINES))
    with openai.OpenAI(base_url=f"{nginx.url}/v1", api_key="none", max_retries=0) as client:
        file = client.files.create(file=("in.jsonl", io.BytesIO(text.encode())), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )

        def output() -> str | None:
            found = client.batches.retrieve(batch.id)
            return found.output_file_id if found.status == "completed" else None

        output_id = eventually(output, within_s=300, what="the batch is completed") or ""
        results = map(json.loads, client.files.content(output_id).text.splitlines())
        found = {
            line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"]
            for line in results
        }
    report.say(f"seconds for a batch of {_LINES} lines", f"{time.monotonic() - began:.1f}")
    right = found == {str(number): f"echo: this is {number}" for number in range(_LINES)}
    report.rule(f"{_LINES} lines uploaded, run and downloaded, each right", right)


def _at_once(report: Report, stack: Stack, upstream: Upstream, nginx: Nginx) -> None:
    """Callers who all wait at the same moment."""
    all_in = stack.store.counters()["accepted"] + _CALLERS
    upstream.hold()
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(run, nginx.url, count=_CALLERS, clients=_CALLERS, tag="at once")
        eventually(lambda: stack.store.counters()["accepted"] == all_in, within_s=60)
        upstream.release()
        right = load.result().right
    report.rule(f"{_CALLERS} callers waited at once, and were answered right", right == _CALLERS)


def _cost(report: Report, stack: Stack, nginx: Nginx) -> None:
    """The same chats directly and through the gateway, in turns; medians over all of them."""
    rows, wrong = [], 0
    for clients, count in _OF:
        times: dict[str, list[float]] = {stack.url: [], nginx.url: []}
        for turn in range(_TURNS):
            for url, taken in times.items():
                tag = f"{url} {clients} {turn}"
                result = run(url, count=count, clients=clients, tag=tag)
                taken.extend(result.latencies_ms)
                wrong += result.sent - result.right
        direct, through = map(median, times.values())
        added, ratio = f"{through - direct:.1f}", f"{through / direct:.2f}"
        rows.append((clients, f"{direct:.1f}", f"{through:.1f}", added, ratio))
    report.table(("callers", "direct, median ms", "through nginx", "added", "ratio"), rows)
    report.rule("every one of these chats was answered right", not wrong)


def main(argv: Sequence[str]) -> int:
    """All of it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.gateway")
    parser.add_argument("--quick", action="store_true", help="chats of 2 s instead of 75 s")
    quick = parser.parse_args(argv).quick
    if binary() is None:
        parser.error("there is no nginx on this machine; install it")
    report = Report()
    with _running(2.0 if quick else _SLOW_S) as (stack, upstream, nginx):
        print("through an nginx with its own timeouts", flush=True)
        with ThreadPoolExecutor(2) as pool:
            through, plain = (pool.submit(_slow, url) for url in (nginx.url, nginx.control))
            _jobs(report, nginx)
            _batch(report, nginx)
            _at_once(report, stack, upstream, nginx)
            status, body, seconds = through.result()
            report.say("a long chat through the gateway", f"{status} after {seconds:.1f} s")
            report.rule("it has its answer", status == 200 and '"echo: slow"' in body)
            status, _, seconds = plain.result()
            report.say("the same through a plain proxy", f"{status} after {seconds:.1f} s")
        if not quick:
            report.rule("which gave up before", status == 504 and seconds < _SLOW_S)
        _cost(report, stack, nginx)
        failed = stack.balanced().get("failed", 0)
        report.rule(f"jobs that failed: {failed}", not failed)
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
