"""What chatd needs: memory of each part, of callers who wait, and of jobs and answers in Redis.

    python -m bench.sizing [CALLERS] [JOBS]

Every caller is answered and every job accepted, or it exits 1.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from pathlib import Path

from bench.load import Result, run
from bench.processes import family, resident_mib
from chat.jobs import NewJob, new_job_id
from chat.types import ChatRequest, Lane, Message, Role
from cli.redis_server import free_port
from tests.servers import Child, python
from tests.stack import Stack
from tests.waiting import eventually

_DELAY_S = 5.0
_REQUEST_BYTES = 1024


def main(callers: int, jobs: int) -> int:
    """Measure it; the exit code is 1 when a call went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        command = python("-m", "bench.upstream", str(port), str(_DELAY_S))
        upstream = Child(command, Path(folder) / "upstream.log").start()
        stack = Stack(
            Path(folder) / "stack", {"ollama": f"http://127.0.0.1:{port}"}, concurrency=callers
        ).start()
        try:
            wrong = _measured(stack, callers, jobs)
        finally:
            stack.stop()
            upstream.stop()
    return 1 if wrong else 0


def _measured(stack: Stack, callers: int, jobs: int) -> int:
    run(stack.url, count=8, clients=8, tag="warm")
    idle = _memory(stack)
    found: list[Result] = []
    load = threading.Thread(
        target=lambda: found.append(run(stack.url, count=callers, clients=callers))
    )
    load.start()
    client = stack.redis.client
    eventually(
        lambda: client.zcard("leases:ollama") == callers or not load.is_alive(),
        within_s=60,
        what="all calls are in flight",
    )
    busy = _memory(stack)
    load.join()
    stack.workers["ollama"].stop(60)
    waiting = _per_job(stack, jobs)
    print(f"{'part':<12}{'idle':>10}{f'{callers} calls in flight':>30}")
    for name, mib in idle.items():
        print(f"{name:<12}{mib:>6.0f} MiB{busy[name]:>26.0f} MiB")
    print(
        f"a waiting job of {_REQUEST_BYTES} bytes: {waiting:.0f} bytes of Redis' memory "
        f"({waiting - _REQUEST_BYTES:.0f} beside the request; {jobs} jobs)"
    )
    wrong = callers - found[0].right
    print(f"{callers} callers: {found[0].right} answered right")
    return wrong


def _memory(stack: Stack) -> dict[str, float]:
    """MiB of each part, its children included."""
    parts = {
        "front end": stack.api,
        "keeper": stack.keeper,
        "worker": stack.workers["ollama"],
        "Redis": stack.redis.child,
    }
    return {
        name: sum(map(resident_mib, family(child.pid)))
        for name, child in parts.items()
        if child.alive
    }


def _per_job(stack: Stack, jobs: int) -> float:
    """Bytes of Redis' memory for a job that waits."""
    before = _used(stack)
    text = "x" * _REQUEST_BYTES
    request = ChatRequest("echo", (Message(Role.USER, text),))
    for _ in range(jobs):
        job = NewJob(new_job_id(), request, "ollama", "echo", Lane.BATCH, 86_400_000)
        stack.store.admit(job)
    return (_used(stack) - before) / jobs


def _used(stack: Stack) -> int:
    return int(stack.redis.client.info("memory")["used_memory"])


if __name__ == "__main__":
    raise SystemExit(main(*map(int, sys.argv[1:3] + ["500", "20000"][len(sys.argv) - 1 :])))
