"""How fast work is accepted: single jobs over HTTP, and a batch file of 50,000 lines.

A job is accepted when its 202 is there, which Redis has confirmed by then. A batch has two moments
that may be called so, both counted from the first byte of the upload: it is on disk, its file too,
and cannot be lost (``made_s``); each line was found good, and none is refused any more
(``checked_s``). Its lines become jobs a window at a time while others end, so that a large batch
does not fill the queue: how fast is in the table ``drain``.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from bench.speed.batch_files import batch_file, batch_object, make_batch, upload
from bench.speed.generator import Load, run
from bench.speed.working import CLIENTS, FIRST, working
from tests.waiting import eventually

__all__ = ["Accepted", "Submitted", "accepted", "submitted"]


@dataclass(frozen=True, slots=True)
class Submitted:
    """Jobs that were accepted; ``cpu_ms`` by part for one of them."""

    working: bool
    per_second: float
    p50_ms: float
    p99_ms: float
    failed: int
    cpu_ms: dict[str, float]

    def to_wire(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A batch on its way in: seconds since the upload began, and CPU seconds by part."""

    lines: int
    bytes: int
    uploaded_s: float
    made_s: float
    checked_s: float
    cpu_s: dict[str, float]

    def to_wire(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def submitted(seconds: float, *, is_working: bool, front_ends: int = 1) -> Submitted:
    """Send POST /v1/jobs as fast as 64 clients can; the worker takes them, or is not there."""
    with working(1, settings=f"api_processes = {front_ends}") as (stack, parts):
        if not is_working:
            stack.workers["ollama"].stop(60)
        marks: list[dict[str, float]] = []
        outcome = run(
            Load(
                url=stack.url,
                form="job",
                connections=CLIENTS,
                seconds=seconds,
                warm_s=0.5,
                tag="submit",
            ),
            begins=lambda: marks.append(parts.cpu()),
            ends=lambda: marks.append(parts.cpu()),
        )
        # The answers that were counted are jobs, and nothing else is.
        acct = stack.balanced()
        known = acct["accepted"] - FIRST
        assert known == outcome.counts.right + outcome.warm.right, (acct, outcome.counts)
    before, after = marks
    return Submitted(
        working=is_working,
        per_second=outcome.per_second,
        p50_ms=outcome.percentile_ms(0.5),
        p99_ms=outcome.percentile_ms(0.99),
        failed=outcome.counts.failed,
        cpu_ms={part: 1000 * (after[part] - before[part]) / outcome.ended for part in before},
    )


def accepted(lines: int) -> Accepted:
    """Bring a batch of so many lines in, and take the time until each has been found good."""
    content = batch_file(lines)
    with working(1) as (stack, parts):
        stack.store.drain("ollama")
        cpu, began = parts.cpu(), time.monotonic()
        file_id = upload(stack, content)
        uploaded = time.monotonic()
        batch_id = make_batch(stack, file_id)
        made = time.monotonic()
        eventually(
            lambda: batch_object(stack, batch_id)["status"] != "validating",
            within_s=120,
            what="the batch is validated",
        )
        checked, spent = time.monotonic(), parts.spent(cpu)
        found = batch_object(stack, batch_id)
        assert found["status"] == "in_progress", found
        assert found["request_counts"]["total"] == lines, found
        stack.http.post(f"{stack.url}/v1/batches/{batch_id}/cancel", timeout=60)
        stack.store.resume("ollama")
        eventually(
            lambda: batch_object(stack, batch_id)["status"] == "cancelled",
            within_s=120,
            what="the batch is cancelled",
        )
    return Accepted(
        lines=lines,
        bytes=len(content),
        uploaded_s=uploaded - began,
        made_s=made - began,
        checked_s=checked - began,
        cpu_s=spent,
    )
