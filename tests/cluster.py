"""chatd on several hosts, each a namespace of ``tests.hosts``: what a test starts, cuts and asks.

Front ends and keeper share one ``data_dir``, as they would over a network file system: files,
batches and evaluations lie there. Each worker has a folder of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import requests
from redis.exceptions import RedisError

from bench.chaos.account import Account, accounted
from bench.chaos.ledger import Ledger
from bench.chaos.load import Load
from bench.upstream import Upstream
from chat.config import load_config
from chat.connection import connect
from chat.store import JobStore
from cli.redis_server import find_binary
from tests.hosts import Host, Network
from tests.servers import Child, python
from tests.stack import NO_KEYS
from tests.waiting import eventually

__all__ = ["HOSTS", "PROVIDER", "Cluster", "FrontEnd"]

HOSTS = ("front1", "front2", "redis", "keeper", "work1", "work2", "upstream")
PROVIDER = "ollama"
_PORT = 3220
_REDIS_PORT, _UPSTREAM_PORT = 6379, 11434
_PASSWORD = "made-up"
#: Seconds within which everybody who has asked is told something.
_TOLD_S = 60.0


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

    def send(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, **more: Any
    ) -> Any:
        """One request; its response."""
        with self.host.inside():
            return self.http.request(method, f"{self.url}{path}", json=body, timeout=120, **more)

    @contextmanager
    def load(self, name: str, rate: float) -> Iterator[Load]:
        """Chats and jobs at a steady pace as long as the block lasts; then all have an answer."""
        load = Load(self.url, name, 1, rate)
        try:
            with self.host.inside():  # And so are the threads that it starts.
                load.start()
            yield load
            load.stop()
            assert load.finish(_TOLD_S) == 0, "somebody was left without any answer"
            with self.host.inside():
                load.collect(_TOLD_S)
        finally:
            load.close()

    def alive(self) -> bool:
        """Whether it answers at all."""
        return self._status("/health") == 200

    def ready(self) -> bool:
        """Whether /ready says so."""
        return self._status("/ready") == 200

    def _status(self, path: str) -> int:
        try:
            return int(self.send("GET", path).status_code)
        except requests.RequestException:
            return 0

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

    ``front_ends`` and ``workers`` name the hosts of those that are there from the start; others may
    get some later. With ``together`` all parts are on the host of that name. ``store`` reaches
    Redis over a file, whatever is cut.
    """

    def __init__(
        self,
        folder: Path,
        network: Network,
        *,
        front_ends: Sequence[str] = ("front1", "front2"),
        workers: Sequence[str] = ("work1", "work2"),
        concurrency: int = 8,
        settings: str = "",
        together: str | None = None,
    ) -> None:
        self.folder = folder
        self.network = network
        self._together = together
        self._workers = workers
        self._concurrency = concurrency
        self._settings = settings
        self.upstream = Upstream(host=self.host("upstream").address)
        self._redis_url = f"redis://:{_PASSWORD}@{self.host('redis').address}:{_REDIS_PORT}/0"
        self.redis = self._redis(folder / "redis")
        config = load_config(self._config("shared"))
        self.store = JobStore(connect(f"unix://:{_PASSWORD}@{folder}/redis/socket"), config)
        self.keeper = self.child("keeper", "keeper", "keeper", data="shared")
        self.fronts = {name: self.front_end(name) for name in front_ends}
        self.workers: dict[str, Child] = {}
        self._added = 0

    def __enter__(self) -> Self:
        try:
            with self.host("upstream").inside():
                self.upstream.start(_UPSTREAM_PORT)
            self.start_redis()
            self.keeper.start()
            for front in self.fronts.values():
                front.child.start()
            for host in self._workers:
                self.add_worker(host)
            for front in self.fronts.values():
                eventually(front.ready, within_s=60, what="the front ends are ready")
            count = len(self._workers)
            eventually(lambda: len(self.seen()) == count, within_s=60, what="the workers")
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

    def host(self, name: str) -> Host:
        """The host of that name, or the one that is all of them."""
        return self.network[self._together or name]

    def child(self, name: str, host: str, *arguments: str, data: str) -> Child:
        """One of chatd's processes on a host, with a folder of that name as its data_dir."""
        environ = {"LAKEHOUSE_CONFIG": str(self._config(data)), **NO_KEYS}
        command = self.host(host).command(python("-m", "cli", *arguments))
        return Child(command, self.folder / f"{name}.log", environ)

    def add_front_end(self, host: str) -> FrontEnd:
        """Start a front end on a host and wait until it is ready."""
        front = self.fronts[host] = self.front_end(host)
        front.child.start()
        eventually(front.ready, within_s=60, what=f"the front end on {host} is ready")
        return front

    def front_end(self, host: str) -> FrontEnd:
        """A front end for a host, not yet started."""
        return FrontEnd(self.host(host), self.child(host, host, "api", data="shared"))

    def add_worker(self, host: str) -> Child:
        """Start a worker on a host, beside those that run there."""
        self._added += 1
        name = f"worker-{self._added}"
        child = self.child(name, host, "worker", PROVIDER, data=host).start()
        self.workers[name] = child
        return child

    def seen(self) -> dict[str, float]:
        """The workers that Redis knows of, and when each was heard last (ms)."""
        found: Any = self.store.redis.zrange(f"workers:{PROVIDER}", 0, -1, withscores=True)
        return dict(found)

    def start_redis(self) -> None:
        """Start Redis, or start it again on the same files, and wait until it answers."""
        self.redis.start()
        eventually(self._redis_answers, what="Redis answers")

    def pids(self) -> dict[str, int]:
        """The processes of chatd that are alive."""
        children = {**self.workers, "keeper": self.keeper}
        children |= {name: front.child for name, front in self.fronts.items()}
        return {name: child.pid for name, child in children.items() if child.alive}

    def account(self, *loads: Load) -> Account:
        """What became of all that was asked, held against what the upstream was asked."""
        # A sender who got an error may have a job all the same, whose call is still out.
        eventually(lambda: not self._live(), within_s=60, what="every job has ended")
        ledger = Ledger()
        ledger.look(self.store)
        asked = [one for load in loads for one in load.asked]
        questions = {one.question for one in asked}
        calls = [seen for seen in list(self.upstream.log) if seen.question in questions]
        ledger.jobs = {k: job for k, job in ledger.jobs.items() if job.question in questions}
        return accounted(asked, [], ledger, calls)

    def audit(self) -> dict[str, Any]:
        """What `chatd audit` finds; run where the keeper is."""
        child = self.child("audit", "keeper", "audit", "--json", data="shared")
        child.log.unlink(missing_ok=True)
        code = child.start().wait(60)
        report: dict[str, Any] = json.loads(child.output())
        assert code == 0, child.output()
        return report

    def _live(self) -> int:
        """Jobs that have not ended."""
        counters = self.store.counters()
        return sum(counters.get(state, 0) for state in ("queued", "waiting", "calling"))

    def _redis_answers(self) -> bool:
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
        command = self.host("redis").command([str(find_binary()), *options])
        return Child(command, folder / "redis.log")

    def _config(self, data: str) -> Path:
        """The configuration of a host; all are the same but for their folder."""
        file = self.folder / f"{data}.toml"
        file.write_text(
            f"""[chatd]
bind = "127.0.0.1:{_PORT}"
redis_url = "{self._redis_url}"
data_dir = "{self.folder / data}"
ollama_url = "http://{self.upstream.host}:{_UPSTREAM_PORT}"
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
