"""The main job under load: synchronous chats through the whole of chatd on an instant upstream.

    python -m bench.main_job [REQUESTS] [CLIENTS]

Prints requests/s and latencies next to the same load sent straight to the upstream, and once more
with a Redis that syncs each write before it confirms it (``durability = "always"``); and the Redis
commands each request cost, from INFO commandstats.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from bench.load import Result, run
from cli.redis_server import free_port
from tests.servers import Child, python
from tests.stack import Stack


def _row(name: str, result: Result, base: Result) -> str:
    return (
        f"{name:<8} {result.per_second:>8.0f}/s  x{result.per_second / base.per_second:<6.3f} "
        f"p50 {result.percentile_ms(0.5):>7.1f} ms  p99 {result.percentile_ms(0.99):>7.1f} ms  "
        f"sent {result.sent}  right {result.right}  wrong {result.wrong}  lost {result.lost}  "
        f"errors {json.dumps(result.errors)}"
    )


def main(count: int, clients: int) -> int:
    """Run it; the exit code is 1 when an answer was lost, wrong or an error."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        upstream = Child(python("-m", "bench.upstream", str(port)), Path(folder) / "upstream.log")
        upstream.start()
        stack = Stack(
            Path(folder) / "stack", {"ollama": f"http://127.0.0.1:{port}"}, concurrency=clients
        ).start()
        try:
            run(stack.url, count=200, clients=clients, tag="warm")
            client = stack.redis.client
            before = _calls(client.info("commandstats"))
            through = run(stack.url, count=count, clients=clients)
            after = _calls(client.info("commandstats"))
            client.config_set("appendfsync", "always")
            always = run(stack.url, count=count, clients=clients, tag="always")
            direct = run(
                f"http://127.0.0.1:{port}",
                count=count,
                clients=clients,
                path="/api/chat",
                tag="direct",
            )
            print(f"{count} chats, {clients} clients, upstream answers at once")
            print(_row("direct", direct, direct))
            print(_row("chatd", through, direct))
            print(_row("always", always, direct))
            print("commands per request, as Redis counted them:")
            for name in sorted(after, key=lambda n: before.get(n, 0) - after[n]):
                each = (after[name] - before.get(name, 0)) / count
                if each >= 0.005:
                    print(f"  {name:<16} {each:6.3f}")
            print("counters:", json.dumps(stack.balanced()))
            return 0 if through.right == always.right == count else 1
        finally:
            stack.stop()
            upstream.stop()


def _calls(stats: dict[str, dict[str, int]]) -> dict[str, int]:
    return {name.removeprefix("cmdstat_"): entry["calls"] for name, entry in stats.items()}


if __name__ == "__main__":
    sys.exit(main(int((sys.argv[1:] or ["2000"])[0]), int((sys.argv[2:] or ["64"])[0])))
