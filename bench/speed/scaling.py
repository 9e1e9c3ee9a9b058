"""How throughput and CPU change with the number of workers and of providers."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.speed.generator import Load, Outcome, percentile, run
from bench.speed.upstream import UpstreamProcess
from bench.speed.working import started
from cli.redis_server import free_port
from tests.stack import Stack

__all__ = ["MODELS", "Scaled", "scaled"]

DELAY_S = 0.05
#: The providers in the order they are added, and a model of each.
MODELS = {
    "ollama": "echo",
    "openrouter": "openrouter/maker/echo",
    "opencode": "opencode/echo",
    "kimi": "kimi/echo",
    "ollama_cloud": "ollama_cloud/echo",
}
#: Where each finds its key: a provider that has one is registered, and wants a worker.
_KEYS = {
    "openrouter": "OPENROUTER_API_KEY",
    "opencode": "OPENCODE_API_KEY",
    "kimi": "KIMI_API_KEY",
    "ollama_cloud": "OLLAMA_CLOUD_KEY",
}
#: Each provider has its own upstream path; the upstream answers Ollama's chats, not its prompts.
_SETTINGS = 'ollama_cloud_api = "chat"'


@dataclass(frozen=True, slots=True)
class Scaled:
    """What came of ``connections`` callers who shared so many providers and workers of each.

    ``cpu_ms`` and ``resident_mib`` are by part, the first for one request.
    """

    providers: int
    workers: int
    connections: int
    per_second: float
    p50_ms: float
    p99_ms: float
    failed: int
    cpu_ms: dict[str, float]
    resident_mib: dict[str, float]

    def to_wire(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def scaled(providers: int, workers: int, connections: int, requests: int) -> Scaled:
    """Send ``requests`` chats, as many to each provider, and wait for all of them."""
    names = list(MODELS)[:providers]
    with tempfile.TemporaryDirectory(prefix="chatd-scaling-") as name:
        folder = Path(name)
        upstream = UpstreamProcess(folder, free_port(), DELAY_S).start()
        stack = Stack(
            folder / "stack",
            dict.fromkeys(names, upstream.url),
            # As many calls as there are callers, over all providers.
            concurrency=2 * connections // providers,
            environ={_KEYS[name]: "sk-made-up" for name in names if name in _KEYS},
            settings=_SETTINGS,
        )
        try:
            with started(stack, workers) as parts:
                _send(stack.url, names, connections, requests // 5)
                before = parts.cpu()
                outcomes = _send(stack.url, names, connections, requests)
                spent = parts.spent(before)
                resident = parts.resident()
                stack.balanced()
        finally:
            upstream.stop()
    latencies = sorted(ms for outcome in outcomes for ms in outcome.latencies_ms)
    sent = sum(outcome.counts.asked for outcome in outcomes)
    seconds = max(outcome.seconds for outcome in outcomes)
    return Scaled(
        providers=providers,
        workers=workers,
        connections=connections,
        per_second=sent / seconds,
        p50_ms=percentile(latencies, 0.5),
        p99_ms=percentile(latencies, 0.99),
        failed=sum(outcome.counts.failed for outcome in outcomes),
        cpu_ms={part: 1000 * used / sent for part, used in spent.items()},
        resident_mib=resident,
    )


def _send(url: str, names: Sequence[str], connections: int, requests: int) -> list[Outcome]:
    """The same load to each provider at the same time."""
    share = len(names)
    loads = [
        Load(
            url=url,
            form="chat",
            model=MODELS[name],
            connections=connections // share,
            count=requests // share,
            tag=name,
        )
        for name in names
    ]
    with ThreadPoolExecutor(share) as threads:
        return list(threads.map(run, loads))
