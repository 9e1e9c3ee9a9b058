"""``chatd up`` as a process, on a folder of its own, with the Redis that it brings along."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import requests

from bench.upstream import Upstream
from cli.redis_server import free_port
from tests.servers import Child, python
from tests.waiting import eventually

__all__ = ["Up", "processes"]

_KEYS = ("OLLAMA_CLOUD_KEY", "OPENROUTER_API_KEY", "OPENCODE_API_KEY", "KIMI_API_KEY")


def processes(config: Path) -> dict[int, str]:
    """Running processes that belong to a configuration, with their command lines.

    chatd's have its name in their environment; Redis overwrites its own and works in data_dir.
    """
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environ = (entry / "environ").read_bytes()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            folder = (entry / "cwd").readlink()
        except OSError:
            continue  # It has ended meanwhile, or belongs to somebody else.
        if command and (str(config).encode() in environ or folder.is_relative_to(config.parent)):
            found[int(entry.name)] = command
    return found


class Up:
    """Started and ready. ``settings`` are further lines of [chatd], ``tail`` further tables."""

    def __init__(
        self, folder: Path, upstream: Upstream, *, settings: str = "", tail: str = ""
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = folder / "lakehouse.toml"
        self.config.write_text(
            f'[chatd]\nbind = "127.0.0.1:{self.port}"\nollama_url = "{upstream.url}"\n'
            f'data_dir = "{folder / "data"}"\n{settings}\n{tail}\n',
            "utf-8",
        )
        self.environ = {"LAKEHOUSE_CONFIG": str(self.config), "PATH": "/usr/bin:/bin"}
        self.environ |= dict.fromkeys(_KEYS, "")
        self.child = Child(python("-m", "cli", "up"), folder / "up.log", self.environ).start()
        eventually(
            lambda: "chatd is ready on" in self.child.output(), within_s=60, what="chatd is ready"
        )

    def said(self) -> list[str]:
        """What `chatd up` itself has said, its children aside."""
        whole, _, _ = self.child.output().rpartition("\n")
        events = map(json.loads, whole.splitlines())
        return [event["message"] for event in events if event["process"] == "up"]

    def pids(self) -> dict[str, int]:
        """The process ids of the parts, as `chatd up` has told them last."""
        pattern = re.compile(r"(.*): pid (\d+)( is to take over)?")
        return {found[1]: int(found[2]) for found in map(pattern.fullmatch, self.said()) if found}

    def chat(self, question: str = "hi") -> requests.Response:
        """POST /v1/chat."""
        body: Any = {"model": "echo", "messages": [{"role": "user", "content": question}]}
        return requests.post(f"{self.url}/v1/chat", json=body, timeout=60)
