"""Two gateways of others: LiteLLM's proxy and Portkey's, in environments of their own.

Both are optional. ``python -m bench.speed install litellm`` (or ``portkey``) puts them below
var/bench; each runs as one process, before the same upstream, which it takes for OpenAI.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.speed.target import Target, answers
from cli.redis_server import free_port
from tests.servers import ROOT, Child
from tests.waiting import eventually

__all__ = [
    "INSTALLERS",
    "litellm",
    "litellm_missing",
    "litellm_version",
    "portkey",
    "portkey_missing",
    "portkey_version",
]

_FOLDER = ROOT / "var" / "bench"
_LITELLM = _FOLDER / "litellm"
_PORTKEY = _FOLDER / "portkey"
_PACKAGE = _PORTKEY / "node_modules" / "@portkey-ai" / "gateway"

#: The newest release whose own pins can all be had; the two further packages make it faster:
#: the C parser of HTTP, and OpenTelemetry, whose import it tries again at every request without.
_LITELLM_PACKAGES = (
    "litellm[proxy]==1.108.7",
    "httptools",
    "opentelemetry-api",
    "opentelemetry-sdk",
    "opentelemetry-exporter-otlp",
)
_PORTKEY_PACKAGE = "@portkey-ai/gateway@1.15.2"

#: A model that its table of costs knows, with prices: an unknown one is slower. No database, no
#: key, no callbacks.
_LITELLM_CONFIG = {
    "model_list": [
        {
            "model_name": "gpt-4o-mini",
            "litellm_params": {
                "model": "openai/gpt-4o-mini",
                "api_base": "",
                "api_key": "sk-made-up",
                "input_cost_per_token": 1.5e-7,
                "output_cost_per_token": 6e-7,
            },
        }
    ],
    "litellm_settings": {"callbacks": [], "set_verbose": False, "telemetry": False},
    "general_settings": {"disable_spend_logs": True},
}


def _install_litellm() -> None:
    subprocess.run([sys.executable, "-m", "venv", str(_LITELLM)], check=True)
    pip = [str(_LITELLM / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *_LITELLM_PACKAGES], check=True)


def _install_portkey() -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("there is no npm on this machine; install Node.js")
    _PORTKEY.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--prefix", str(_PORTKEY), "--no-fund", "--no-audit"]
    subprocess.run([*command, _PORTKEY_PACKAGE], check=True)


#: What can be installed, by name.
INSTALLERS = {"litellm": _install_litellm, "portkey": _install_portkey}


def litellm_missing() -> str:
    """What is not there to start it, "" if all is."""
    there = (_LITELLM / "bin" / "litellm").exists()
    return "" if there else "not installed: python -m bench.speed install litellm"


def litellm_version() -> str:
    """The installed one."""
    found = sorted(_LITELLM.glob("lib/python*/site-packages/litellm-*.dist-info"))
    return found[-1].name.removeprefix("litellm-").removesuffix(".dist-info")


@contextmanager
def litellm(folder: Path, upstream_url: str) -> Iterator[Target]:
    """LiteLLM's proxy, one process of uvicorn."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads(json.dumps(_LITELLM_CONFIG))
    config["model_list"][0]["litellm_params"]["api_base"] = f"{upstream_url}/v1"
    file = folder / "config.yaml"
    file.write_text(json.dumps(config), "utf-8")  # JSON is YAML.
    port = free_port()
    binary = str(_LITELLM / "bin" / "litellm")
    child = Child(
        [binary, "--config", str(file), "--host", "127.0.0.1", "--port", str(port)],
        folder / "litellm.log",
        # It would fetch its table of costs from the network, and write a line for each request. A
        # key would cost it a look-up; it listens on loopback only, for the time of a run.
        {
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "LITELLM_TELEMETRY": "False",
        },
    )
    yield from _served(child, Target(f"http://127.0.0.1:{port}", "completion", {}, "gpt-4o-mini"))


def portkey_missing() -> str:
    """What is not there to start it, "" if all is."""
    if shutil.which("node") is None:
        return "there is no node on this machine"
    there = (_PACKAGE / "build" / "start-server.js").exists()
    return "" if there else "not installed: python -m bench.speed install portkey"


def portkey_version() -> str:
    """The installed one, with that of Node."""
    package = json.loads((_PACKAGE / "package.json").read_text("utf-8"))
    node = subprocess.run(
        [shutil.which("node") or "node", "--version"], capture_output=True, text=True, check=True
    )
    return f"{package['version']} on Node {node.stdout.strip()}"


@contextmanager
def portkey(folder: Path, upstream_url: str) -> Iterator[Target]:
    """Portkey's gateway, one process of Node."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    child = Child(
        [
            shutil.which("node") or "node",
            str(_PACKAGE / "build" / "start-server.js"),
            f"--port={port}",
            "--headless",
        ],
        folder / "portkey.log",
        {"NODE_ENV": "production"},
    )
    headers = {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"{upstream_url}/v1",
        "Authorization": "Bearer sk-made-up",
    }
    yield from _served(
        child, Target(f"http://127.0.0.1:{port}", "completion", {}, "gpt-4o-mini", headers)
    )


def _served(child: Child, target: Target) -> Iterator[Target]:
    """The target once it answers, as long as it is used."""
    try:
        child.start()
        url = f"{target.url}/v1/chat/completions"
        eventually(
            lambda: answers(url, target.headers, target.model) or not child.alive,
            within_s=120,
            what=f"{child.command[0]} answers",
        )
        assert child.alive, child.output()[-2000:]
        yield Target(target.url, target.form, {"proxy": child.pid}, target.model, target.headers)
    finally:
        child.stop(60)
