"""What batches promise: 10,000 lines through OpenAI's own client, kills, cancelling, fairness.

    python -m bench.batches [drain | kills | cancel | fairness …] [--quick]

Real processes on loopback before an upstream that answers after 50 ms. Each scenario prints what
it counted and the rules it checked; the exit code is 1 when a rule was broken. All of them take
about five minutes; ``--quick`` runs a tenth of the lines.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
from openai.types import Batch

from bench.processes import family, resident_mib
from bench.sampling import Sampler
from bench.scenes.scene import Report, percentile
from bench.upstream import Upstream
from tests.servers import Child
from tests.stack import Stack
from tests.waiting import eventually

__all__ = ["SCENARIOS", "main"]

_DELAY_S = 0.05
_PERMITS = 16
_TERMINAL = frozenset({"completed", "failed", "expired", "cancelled"})


class Bench:
    """chatd with one provider, the official client before it and an upstream behind it."""

    def __init__(self, folder: Path, upstream: Upstream, lines: int) -> None:
        self.upstream = upstream
        self.lines = lines
        self.stack = Stack(folder, {"ollama": upstream.url}, concurrency=_PERMITS)
        self.client = openai.OpenAI(
            base_url=f"{self.stack.url}/v1", api_key="none", max_retries=5, timeout=60
        )

    def upload(self, lines: int) -> str:
        """A file of so many requests; its id."""
        text = "".join(_line(number) for number in range(1, lines + 1))
        file = self.client.files.create(
            file=("in.jsonl", io.BytesIO(text.encode())), purpose="batch"
        )
        return file.id

    def submit(self, file_id: str) -> Batch:
        """A batch of that file."""
        return self.client.batches.create(
            input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h"
        )

    def look(self, batch: Batch) -> Batch:
        """The batch as it is now."""
        return self.client.batches.retrieve(batch.id)

    def until(self, batch: Batch, done: Callable[[Batch], bool], within_s: float = 600) -> Batch:
        """The batch once that holds."""

        def check() -> Batch | None:
            found = self.look(batch)
            return found if done(found) else None

        found = eventually(check, within_s=within_s, what=f"{batch.id} gets there")
        assert found is not None
        return found

    def called(self, least: int) -> None:
        """Wait for so many upstream calls."""
        eventually(lambda: self.upstream.calls.total() >= least, within_s=300)

    def done(self, batch: Batch) -> int:
        """How many lines of a batch have an answer."""
        counts = self.look(batch).request_counts
        return counts.completed if counts is not None else 0

    def results(self, file_id: str | None) -> list[dict[str, Any]]:
        """The lines of a file of results."""
        if file_id is None:
            return []
        return [json.loads(line) for line in self.client.files.content(file_id).text.splitlines()]


@contextmanager
def _running(lines: int) -> Iterator[Bench]:
    upstream = Upstream(delay_s=_DELAY_S).start()
    with tempfile.TemporaryDirectory(prefix="chatd-batches-") as folder:
        bench = Bench(Path(folder), upstream, lines)
        try:
            bench.stack.start()
            yield bench
        finally:
            upstream.release()
            bench.client.close()
            bench.stack.stop()
            upstream.stop()


def _line(number: int) -> str:
    body = {"model": "echo", "messages": [{"role": "user", "content": f"question {number}"}]}
    line = {
        "custom_id": f"r{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": body,
    }
    return json.dumps(line) + "\n"


def _accounted(report: Report, bench: Bench, batch: Batch) -> None:
    """Every line has one result; the ledger has every upstream call."""
    output = bench.results(batch.output_file_id)
    numbers = sorted(line["chatd"]["line"] for line in output + bench.results(batch.error_file_id))
    report.rule(
        f"{bench.lines} lines, each accounted for once ({len(output)} answered)",
        numbers == list(range(1, bench.lines + 1)) and len(output) == bench.lines,
    )
    calls = bench.upstream.calls.total()
    attempts = [len(line["chatd"]["attempts"]) for line in output]
    more = sum(count > 1 for count in attempts)
    report.say(
        "upstream calls; attempts in the ledger; lines with more",
        f"{calls}; {sum(attempts)}; {more}",
    )
    report.rule("the ledger explains every upstream call", calls <= sum(attempts))
    counts = bench.upstream.calls
    ledger = {
        f"question {line['chatd']['line']}": len(line["chatd"]["attempts"]) for line in output
    }
    report.rule(
        "no question was called more often than its ledger says",
        all(calls <= ledger.get(question, 0) for question, calls in counts.items()),
    )
    acct = bench.stack.balanced()
    report.rule(
        f"the books add up, and nothing is left in Redis ({acct.get('retired', 0)} retired)",
        acct["accepted"] == acct.get("retired", 0),
    )


class _Memory(Sampler):
    """The most memory that some processes and Redis have used while it watches, in MiB."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(self._measure, 0.2)
        stack = bench.stack
        self._children: dict[str, Child] = {
            "front end": stack.api,
            "keeper": stack.keeper,
            "worker": stack.workers["ollama"],
        }
        self._redis = stack.redis.client
        self.peak: dict[str, float] = {}
        self._measure()
        self.before = dict(self.peak)

    def _measure(self) -> None:
        used = {"Redis": self._redis.info("memory")["used_memory"] / 2**20}
        for name, child in self._children.items():
            used[name] = sum(map(resident_mib, family(child.pid)))
        for name, mib in used.items():
            self.peak[name] = max(mib, self.peak.get(name, 0.0))


def drain(report: Report, lines: int) -> None:
    """10,000 lines from upload to download, and what it costs."""
    with _running(lines) as bench, _Memory(bench) as memory:
        began = time.monotonic()
        file_id = bench.upload(lines)
        uploaded = time.monotonic()
        batch = bench.submit(file_id)
        submitted = time.monotonic()
        bench.until(batch, lambda found: found.status != "validating")
        validated = time.monotonic()
        batch = bench.until(batch, lambda found: found.status in _TERMINAL)
        ended = time.monotonic()
        report.say(
            "seconds to upload; to make the batch",
            f"{uploaded - began:.2f}; {submitted - uploaded:.3f}",
        )
        report.say("seconds to validate", f"{validated - submitted:.2f}")
        calls = [seen.at for seen in bench.upstream.log]
        ideal = lines * _DELAY_S / _PERMITS
        took = calls[-1] + _DELAY_S - calls[0]
        report.say("seconds of calls; ideal; ratio", f"{took:.1f}; {ideal:.1f}; {took / ideal:.2f}")
        report.say("seconds from upload to the last result", f"{ended - began:.1f}")
        _accounted(report, bench, batch)
        began = time.monotonic()
        size = len(bench.client.files.content(batch.output_file_id or "").read())
        report.say(
            "output file MB; seconds to download",
            f"{size / 1e6:.1f}; {time.monotonic() - began:.2f}",
        )
    for name, mib in memory.peak.items():
        report.say(f"peak memory of {name}, MiB (before)", f"{mib:.0f} ({memory.before[name]:.0f})")


def kills(report: Report, lines: int) -> None:
    """Front end, worker, keeper and Redis die in the middle; every line still has one result."""
    with _running(lines) as bench:
        batch = bench.submit(bench.upload(lines))
        stack = bench.stack
        for number, child in enumerate((stack.api, stack.workers["ollama"], stack.keeper), 1):
            bench.called(number * lines // 5)
            child.kill()
            child.start()
            report.say(
                "killed with SIGKILL after so many calls",
                f"{child.log.stem}, {bench.upstream.calls.total()}",
            )
        bench.called(4 * lines // 5)
        stack.redis.kill()
        stack.redis.start()
        report.say("Redis killed and started after so many calls", bench.upstream.calls.total())
        batch = bench.until(batch, lambda found: found.status in _TERMINAL)
        _accounted(report, bench, batch)


def cancel(report: Report, lines: int) -> None:
    """A batch of 50,000 lines is cancelled two seconds after its first call."""
    lines *= 5
    with _running(lines) as bench:
        batch = bench.submit(bench.upload(lines))
        eventually(bench.upstream.calls.total, within_s=120)
        time.sleep(2)
        asked = time.monotonic()
        bench.client.batches.cancel(batch.id)
        answered = time.monotonic()
        batch = bench.until(batch, lambda found: found.status in _TERMINAL)
        ended = time.monotonic()
        last = bench.upstream.log[-1].at
        report.say("seconds until the cancel was answered", f"{answered - asked:.3f}")
        report.say(
            "seconds until the last upstream call; to the end",
            f"{max(0.0, last - asked):.2f}; {ended - asked:.1f}",
        )
        counts = batch.request_counts
        assert counts is not None
        report.say(
            "completed, cancelled, of", f"{counts.completed}, {counts.failed}, {counts.total}"
        )
        report.rule("nothing more is sent after 1 s", last - asked <= 1.0)
        errors = bench.results(batch.error_file_id)
        codes = {line["error"] and line["error"]["code"] for line in errors}
        report.rule(
            "every line is answered or says that it was cancelled",
            counts.completed + counts.failed == lines and codes == {"batch_cancelled"},
        )
        cut = [line for line in errors if line["chatd"]["attempts"]]
        maybe = [line for line in cut if line["chatd"]["attempts"][-1]["billed"] == "maybe"]
        sent = bench.upstream.answered
        report.say("answers the upstream sent; calls cut by the cancel", f"{sent}; {len(cut)}")
        # An answer may be on its way in the moment in which its call is closed.
        report.rule(
            "every answer is in the output, or its call was cut and may be billed",
            len(bench.results(batch.output_file_id)) == counts.completed
            and counts.completed <= sent <= counts.completed + len(maybe)
            and len(maybe) == len(cut),
        )


def fairness(report: Report, lines: int) -> None:
    """Two batches and people at the same time."""
    lines //= 2
    with _running(lines) as bench:
        chat = bench.client.chat.completions.create
        alone = [_timed(chat, number) for number in range(50)]
        first = bench.submit(bench.upload(lines))
        eventually(lambda: bench.done(first) > lines // 10, within_s=120)
        second = bench.submit(bench.upload(lines))
        bench.until(second, lambda found: found.status == "in_progress")
        before = [bench.done(batch) for batch in (first, second)]
        beside: list[float] = []
        until = time.monotonic() + 10
        while time.monotonic() < until:
            beside.append(_timed(chat, len(beside)))
        after = [bench.done(batch) for batch in (first, second)]
        moved = [then - now for now, then in zip(before, after, strict=True)]
        share = moved[1] / max(1, sum(moved))
        report.say(
            "lines done meanwhile, first and second batch",
            f"{moved[0]}, {moved[1]} ({share:.0%} to the second)",
        )
        report.say(
            "a person's chat, median / p99 ms, alone and beside them",
            f"{_ms(alone)}; {_ms(beside)}",
        )
        report.rule("the second batch gets 40 to 60 % of what both get", 0.4 <= share <= 0.6)
        report.rule(
            "a person's p99 is within 1.5 x alone + one upstream call",
            percentile(beside, 0.99) <= 1.5 * percentile(alone, 0.99) + _DELAY_S,
        )
        for batch in (first, second):
            bench.client.batches.cancel(batch.id)
            bench.until(batch, lambda found: found.status in _TERMINAL)


def _timed(chat: Callable[..., object], number: int) -> float:
    began = time.monotonic()
    chat(model="echo", messages=[{"role": "user", "content": f"person {number}"}])
    return time.monotonic() - began


def _ms(times: list[float]) -> str:
    return f"{1000 * percentile(times, 0.5):.0f} / {1000 * percentile(times, 0.99):.0f}"


SCENARIOS: dict[str, Callable[[Report, int], None]] = {
    "drain": drain,
    "kills": kills,
    "cancel": cancel,
    "fairness": fairness,
}


def main(arguments: list[str]) -> int:
    """Run the scenarios named; 1 when a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m bench.batches")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--quick", action="store_true", help="a tenth of the lines")
    options = parser.parse_args(arguments)
    for name in options.scenarios:
        if name not in SCENARIOS:
            parser.error(f"there is no scenario {name!r}; choose from {', '.join(SCENARIOS)}")
    report = Report()
    for name in options.scenarios or SCENARIOS:
        scenario = SCENARIOS[name]
        print(f"{name}: {(scenario.__doc__ or '').splitlines()[0]}", flush=True)
        scenario(report, 1000 if options.quick else 10_000)
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
