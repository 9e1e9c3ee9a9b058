"""chatd on several hosts, each a namespace of ``tests.hosts``: what a test starts, cuts and asks.

Front ends and keeper share one ``data_dir``, as they would over a network file system: files,
batches and evaluations lie there. Each worker has a folder of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import requests

from bench.upstream import Upstream
from chat.config import load_config
from chat.connection import connect
from chat.store import JobStore
from cli.redis_server import find_binary
from tests.hosts import Host, Network
from tests.servers import Child, python
from tests.stack import NO_KEYS
from tests.waiting import eventually

__all__ = ["FRONT_ENDS", "PROVIDER", "Cluster", "FrontEnd"]

FRONT_ENDS = ("front1", "front2")
PROVIDER = "ollama"
_PORT = 3220
_REDIS_PORT, _UPSTREAM_PORT = 6379, 11434
_PASSWORD = "made-up"


@dataclass(slots=True)
class FrontEnd:
    """The front end of one host, and how callers reach it.

    It listens on its host's loopback address, and its callers are there too: of what a cut does,
    they see what the front end makes of it.
    """

    host: Host
    child: Child
    url: str = f"http://127.0.0.1:{_PORT}"
    http: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.http.trust_env = False
        self.http.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=300))

    def send(self, method: str, path: str, body: Mapping[str, Any] | None = None, **more: Any) -> Any:
        """One request; its response."""
        with self.host.inside():
            return self.http.request(method, f"{self.url}{path}", json=body, timeout=120, **more)

    def ready(self) -> bool:
        """Whether /ready says so."""
        try:
            return bool(self.send("GET", "/ready").status_code == 200)
        except requests.RequestException:
            return False

    def chat(self, question: str, **more: Any) -> requests.Response:
        """POST /v1/chat."""
        reply: requests.Response = self.send("POST", "/v1/chat", _asking(question), **more)
        return reply

    def submit(self, question: str, **fields: Any) -> str:
        """POST /v1/jobs; the job's id."""
        reply = self.send("POST", "/v1/jobs", {**_asking(question), **fields})
        assert reply.status_code == 202, reply.text
        job_id: str = reply.json()["id"]
        return job_id

    def record(self, job_id: str, wait_s: float = 0) -> dict[str, Any]:
        """GET /v1/jobs/<id>."""
        reply = self.send("GET", f"/v1/jobs/{job_id}?wait={wait_s:g}")
        assert reply.status_code == 200, reply.text
        record: dict[str, Any] = reply.json()
        return record

    def ended(self, job_id: str, within_s: float = 60) -> dict[str, Any]:
        """The record once the job is over."""

        def look() -> dict[str, Any] | None:
            record = self.record(job_id)
            return None if record["state"] in {"queued", "waiting", "calling"} else record

        found = eventually(look, within_s=within_s, what=f"job {job_id} ends")
        assert found is not None
        return found


class Cluster:
    """Redis, an upstream, a keeper, front ends and workers, each on a host of its own.

    ``front_ends`` and ``workers`` name hosts; a host that is named nowhere else may get a worker
    later. ``store`` reaches Redis over a file, whatever is cut.
    """

    def __init__(
        self,
        folder: Path,
        network: Network,
        *,
        front_ends: Sequence[str] = FRONT_ENDS,
        workers: Sequence[str] = ("work1", "work2"),
        concurrency: int = 8,
        settings: str = "",
    ) -> None:
        self.folder = folder
        self.network = network
        self._workers = workers
        self._concurrency = concurrency
        self._settings = settings
        self.upstream = Upstream(host=network["upstream"].address)
        self._redis_url = f"redis://:{_PASSWORD}@{network['redis'].address}:{_REDIS_PORT}/0"
        self.redis = self._redis(folder / "redis")
        config = load_config(self._config("shared"))
        self.store = JobStore(connect(f"unix://:{_PASSWORD}@{folder}/redis/socket"), config)
        self.keeper = self.child("keeper", "keeper", "keeper", data="shared")
        self.fronts = {
            name: FrontEnd(network[name], self.child(name, name, "api", data="shared"))
            for name in front_ends
        }
        self.workers: dict[str, Child] = {}

    def __enter__(self) -> Self:
        try:
            with self.network["upstream"].inside():
                self.upstream.start(_UPSTREAM_PORT)
            self.start_redis()
            self.keeper.start()
            for front in self.fronts.values():
                front.child.start()
            for host in self._workers:
                self.add_worker(host)
            for front in self.fronts.values():
                eventually(front.ready, within_s=60, what="the front ends are ready")
            eventually(lambda: self.seen() >= set(self._workers), within_s=60, what="the workers")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Front ends first, Redis last."""
        self.network.heal()
        self.upstream.release()
        fronts = list(self.fronts.values())
        try:
            for child in (*(front.child for front in fronts), *self.workers.values(), self.keeper):
                child.stop(60)
        finally:
            for front in fronts:
                front.http.close()
            for child in (*self.workers.values(), self.keeper, self.redis):
                child.kill()
            self.upstream.stop()

    def child(self, name: str, host: str, *arguments: str, data: str) -> Child:
        """One of chatd's processes on a host, with a folder of that name as its data_dir."""
        environ = {"LAKEHOUSE_CONFIG": str(self._config(data)), **NO_KEYS}
        command = self.network[host].command(python("-m", "cli", *arguments))
        return Child(command, self.folder / f"{name}.log", environ)

    def add_worker(self, host: str) -> Child:
        """Start a worker on a host, beside those that run there."""
        name = f"worker-{len(self.workers) + 1}"
        child = self.child(name, host, "worker", PROVIDER, data=host).start()
        self.workers[name] = child
        return child

    def seen(self) -> set[str]:
        """The hosts of the workers that Redis knows of."""
        found: Any = self.store.redis.zrange(f"workers:{PROVIDER}", 0, -1)
        return {worker.partition("@")[2] for worker in found}

    def start_redis(self) -> None:
        """Start Redis, or start it again on the same files, and wait until it answers."""
        self.redis.start()
        eventually(self._redis_answers, what="Redis answers")

    def pids(self) -> dict[str, int]:
        """The processes of chatd that are alive."""
        children = {**self.workers, "keeper": self.keeper}
        children |= {name: front.child for name, front in self.fronts.items()}
        return {name: child.pid for name, child in children.items() if child.alive}

    def audit(self) -> dict[str, Any]:
        """What `chatd audit` finds; run where the keeper is."""
        child = self.child("audit", "keeper", "audit", "--json", data="shared")
        child.log.unlink(missing_ok=True)
        code = child.start().wait(60)
        report: dict[str, Any] = json.loads(child.output())
        assert code == 0, child.output()
        return report

    def _redis_answers(self) -> bool:
        from redis.exceptions import RedisError  # noqa: PLC0415

        try:
            return bool(self.store.redis.ping())
        except RedisError:
            return False

    def _redis(self, folder: Path) -> Child:
        folder.mkdir(parents=True)
        arguments = {
            "bind": "0.0.0.0",  # noqa: S104 - all there is on its host
            "port": str(_REDIS_PORT),
            "unixsocket": str(folder / "socket"),
            "requirepass": _PASSWORD,
            "dir": str(folder),
            "appendonly": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        options = [word for name, value in arguments.items() for word in (f"--{name}", value)]
        command = self.network["redis"].command([str(find_binary()), *options])
        return Child(command, folder / "redis.log")

    def _config(self, data: str) -> Path:
        """The configuration of a host; all are the same but for their folder."""
        file = self.folder / f"{data}.toml"
        file.write_text(
            f"""[chatd]
bind = "127.0.0.1:{_PORT}"
redis_url = "{self._redis_url}"
data_dir = "{self.folder / data}"
ollama_url = "http://{self.network["upstream"].address}:{_UPSTREAM_PORT}"
models_refresh_s = 0
{self._settings}
[chatd.providers.{PROVIDER}]
concurrency = {self._concurrency}
""",
            "utf-8",
        )
        return file


def _asking(question: str) -> dict[str, Any]:
    return {"model": "echo", "messages": [{"role": "user", "content": question}]}
