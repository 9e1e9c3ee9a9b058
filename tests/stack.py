"""The whole of chatd as separate processes, each of which a test may kill."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests

from chat.config import load_config
from chat.connection import connect
from chat.store import JobStore
from cli.redis_server import free_port
from tests.servers import Child, RedisProcess, python
from tests.waiting import eventually

__all__ = ["NO_KEYS", "Stack"]

#: The keys of whoever runs this stay out of it: their providers would have no worker.
NO_KEYS = dict.fromkeys(
    ("OLLAMA_CLOUD_KEY", "OPENROUTER_API_KEY", "OPENCODE_API_KEY", "KIMI_API_KEY"), ""
)


class Stack:
    """Redis, keeper, workers and front end on one configuration.

    ``providers`` maps a registered provider to its base URL; ``environ`` has the keys. ``settings``
    are further lines of [chatd], ``tail`` further tables.
    """

    def __init__(
        self,
        folder: Path,
        providers: Mapping[str, str],
        *,
        concurrency: int = 8,
        environ: Mapping[str, str] | None = None,
        settings: str = "",
        tail: str = "",
        redis: RedisProcess | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.redis = redis or RedisProcess(folder / "redis")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config_file = folder / "lakehouse.toml"
        lines = [
            "[chatd]",
            f'bind = "127.0.0.1:{self.port}"',
            f'redis_url = "{self.redis.url}"',
            f'data_dir = "{folder / "data"}"',
            f'ollama_url = "{providers.get("ollama", "")}"',
            # Scripts of upstreams count calls, and answer by the model that is asked for.
            "" if "models_refresh_s" in settings else "models_refresh_s = 0",
            settings,
        ]
        for name, url in providers.items():
            lines += [f"[chatd.providers.{name}]", f"concurrency = {concurrency}"]
            if name != "ollama":
                lines += [f'base_url = "{url}"', 'key_file = "/nonexistent"']
            if name == "opencode":
                lines += [f'go_base_url = "{url}/go"']
        lines.append(tail)
        self.config_file.write_text("\n".join(lines) + "\n", "utf-8")
        self.environ = {"LAKEHOUSE_CONFIG": str(self.config_file), **NO_KEYS, **(environ or {})}
        self.config = load_config(self.config_file)
        self.api = self.child("api", "api")
        self.keeper = self.child("keeper", "keeper")
        self.workers = {name: self.child(f"worker-{name}", "worker", name) for name in providers}
        self.store = JobStore(connect(self.redis.url), self.config)
        self.http = requests.Session()
        self.http.trust_env = False
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=300, pool_connections=4)
        self.http.mount("http://", adapter)

    def child(self, name: str, *arguments: str) -> Child:
        """One of chatd's processes, not yet started."""
        return Child(python("-m", "cli", *arguments), self.folder / f"{name}.log", self.environ)

    def start(self, *, ready: bool = True) -> Stack:
        """Start everything and wait until the front end is ready."""
        if not self.redis.child.alive:
            self.redis.start()
        for child in (self.keeper, *self.workers.values(), self.api):
            child.start()
        try:
            if ready:
                eventually(self.ready, within_s=60, what="the front end is ready")
        except AssertionError:
            print(self.api.output()[-2000:])  # noqa: T201 - pytest shows it with the failure
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Front end first, Redis last."""
        self.http.close()
        self.redis.resume()
        if not self.redis.child.alive:
            self.redis.start()
        for child in (self.api, *self.workers.values(), self.keeper):
            child.stop(60)
        self.redis.stop()

    def ready(self) -> bool:
        """Whether /ready says so."""
        try:
            return self.http.get(f"{self.url}/ready", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    def chat(
        self,
        question: str,
        model: str = "echo",
        *,
        headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> requests.Response:
        """POST /v1/chat."""
        body = {"model": model, "messages": [{"role": "user", "content": question}], **fields}
        return self.http.post(f"{self.url}/v1/chat", json=body, headers=headers, timeout=300)

    def submit(self, question: str, model: str = "echo", **fields: Any) -> str:
        """POST /v1/jobs; the job's id."""
        body = {"model": model, "messages": [{"role": "user", "content": question}], **fields}
        reply = self.http.post(f"{self.url}/v1/jobs", json=body, timeout=60)
        assert reply.status_code == 202, reply.text
        job_id: str = reply.json()["id"]
        return job_id

    def record(self, job_id: str) -> dict[str, Any]:
        """GET /v1/jobs/<id>."""
        reply = self.http.get(f"{self.url}/v1/jobs/{job_id}", timeout=60)
        assert reply.status_code == 200, reply.text
        record: dict[str, Any] = reply.json()
        return record

    def ended(self, job_id: str, within_s: float = 60) -> dict[str, Any]:
        """The record once the job is over."""
        terminal = {"succeeded", "failed", "cancelled", "expired"}

        def look() -> dict[str, Any] | None:
            record = self.record(job_id)
            return record if record["state"] in terminal else None

        found = eventually(look, within_s=within_s, what=f"job {job_id} ends")
        assert found is not None
        return found

    def balanced(self) -> dict[str, int]:
        """The counters, checked: accepted = the sum over the states + retired."""
        acct = self.store.counters()
        states = ("queued", "waiting", "calling", "succeeded", "failed", "cancelled", "expired")
        total = sum(acct.get(state, 0) for state in states) + acct.get("retired", 0)
        assert acct.get("accepted", 0) == total, json.dumps(acct)
        return acct
