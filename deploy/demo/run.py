"""``make demo`` and ``make up``: chatd on a real model, on a machine that has nothing but Python.

The demo starts chatd with a configuration of its own in a temporary folder, sends one chat that
waits, one job that does not, one to a tier, a batch and an evaluation, runs deploy/smoke.sh, stops
everything and looks whether anything is left. With ``--stay`` it stays in the foreground instead.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from deploy.demo.batch import run_batch
from deploy.demo.client import Client, wait_ready
from deploy.demo.command import run_chatd
from deploy.demo.model import OllamaModel, find_ollama, install_model_server, start_model_server
from deploy.demo.ports import HOST, free_port
from deploy.demo.processes import Child, DemoError, descendants

__all__ = ["main"]

_ROOT = Path(__file__).resolve().parents[2]
_CLOUDS = ("ollama_cloud", "openrouter", "opencode", "kimi")
_KEYS = ("OLLAMA_CLOUD_KEY", "OPENROUTER_API_KEY", "OPENCODE_API_KEY", "KIMI_API_KEY")
_USUAL_PORT = 3220
_TIER = "local_fast"
_SUITE = Path(__file__).parent / "evaluation" / "capitals.toml"
_REPORT = _ROOT / "var" / "demo" / "capitals.html"
_QUESTION = "Say in one sentence what a message queue is for."

#: An Ollama may have to load its model from disk before the first answer.
_ANSWER_WITHIN_S = 180
_READY_WITHIN_S = 90
_SMOKE_WITHIN_S = 600
_LOG_LINES = 40


def main() -> None:
    """Run the demo; exit 0 when all of it worked, else 1 with what the processes said last."""
    parser = argparse.ArgumentParser(prog="make demo", description="chatd on a real model.")
    parser.add_argument("--stay", action="store_true", help="stay in the foreground until Ctrl-C")
    parser.add_argument("--ollama-url", default="http://localhost:11434")
    parser.add_argument("--since", type=float, default=time.time(), help="start, in epoch seconds")
    options = parser.parse_args()

    # smoke.sh and, with --stay, chatd write to the same terminal: keep the order of lines.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _work_folder() as folder, _model(folder, options.ollama_url) as model:
            if options.stay:
                _stay(folder, model)
            else:
                _demo(folder, model)
    except DemoError as error:
        sys.exit(f"\nFAILED: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped")
    if not options.stay:
        print(f"\nAll stopped, nothing left running. {time.time() - options.since:.0f} s in all.")


@contextmanager
def _work_folder() -> Iterator[Path]:
    """A temporary folder; after a failure the logs in it are shown, and it is kept."""
    folder = Path(tempfile.mkdtemp(prefix="chatd-demo-"))
    try:
        yield folder
    except DemoError:
        for log in sorted(folder.glob("*.log")):
            end = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
            print(f"\n--- the end of {log} ---", *end, sep="\n", file=sys.stderr)
        raise
    except BaseException:
        shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)


@contextmanager
def _model(folder: Path, ollama_url: str) -> Iterator[OllamaModel]:
    """An Ollama's model if there is one, else the demo's own server for as long as it is needed."""
    model = find_ollama(ollama_url)
    with ExitStack() as stack:
        if model is not None:
            print(f"  model       {model.name}, the smallest that the Ollama at {ollama_url} has")
        else:
            print(f"  model       no Ollama with a chat model at {ollama_url}: the demo brings one")
            install_model_server()
            server, model = start_model_server(folder / "model-server.log")
            stack.enter_context(server)
            print(f"              {model.name}: real but small (SmolLM2-135M-Instruct, 4 bits),")
            print(f"              run by llama.cpp, speaking Ollama's wire on {model.url}")
        yield model


def _demo(folder: Path, model: OllamaModel) -> None:
    """Show the main job in six steps, then stop chatd and see that nothing of it is left."""
    port = free_port()
    config = _write_config(folder, model, port=port, data_dir=folder / "data", clouds=False)
    started = time.monotonic()
    with _chatd(config, environ=_without_keys(), log=folder / "chatd.log") as child:
        client = Client(f"http://{HOST}:{port}")
        wait_ready(client, "/ready", child, within_s=_READY_WITHIN_S)
        print(f"  chatd       {client.url}, ready after {time.monotonic() - started:.1f} s")
        _chat(client, model.name, "1. A chat that waits: POST /v1/chat")
        _job(client, model.name)
        _chat(client, _TIER, f"3. The same to the tier {_TIER}, which stands for the model")
        print("\n4. A file of requests: chatd batch submit, then chatd batch results")
        run_batch(folder, client.url, model.name)
        _evaluate(client.url)
        _smoke(client.url, model.name)
        print(f"\nStopping chatd and the {len(descendants(child.pid))} processes it started ...")


def _stay(folder: Path, model: OllamaModel) -> None:
    """Keep chatd in the foreground, with the cloud providers whose keys are set."""
    if not _is_free(_USUAL_PORT):
        raise DemoError(
            f"something listens on {HOST}:{_USUAL_PORT} already, perhaps another chatd; stop it, "
            "or start chatd with a configuration of your own: chatd --config FILE up"
        )
    data_dir = _ROOT / "var" / "up"
    config = _write_config(folder, model, port=_USUAL_PORT, data_dir=data_dir, clouds=True)
    with _chatd(config, environ=dict(os.environ), log=None) as child:
        try:
            client = Client(f"http://{HOST}:{_USUAL_PORT}")
            wait_ready(client, "/ready", child, within_s=_READY_WITHIN_S)
            body = {"model": _TIER, "messages": [{"role": "user", "content": _QUESTION}]}
            print("\nTry, in another terminal (Ctrl-C here stops everything):\n")
            print(f"  curl {client.url}/v1/chat -d '{json.dumps(body)}'\n")
            if child.wait() != 0:
                raise DemoError(f"chatd ended by itself with exit code {child.exit_code}")
        except KeyboardInterrupt:
            print("\nStopping; calls under way are finished first. Ctrl-C again cuts them off.")
            try:
                child.stop()
            except KeyboardInterrupt:
                child.stop()  # chatd takes a second SIGTERM as an order to kill.


def _chatd(config: Path, *, environ: dict[str, str], log: Path | None) -> Child:
    """``chatd up`` with ``config``; with a log it is the demo's and has nothing to drain."""
    script = Path(sys.executable).with_name("chatd")
    return Child(
        "chatd",
        [sys.executable, str(script), "--config", str(config), "up"],
        environ={**environ, "PYTHONUNBUFFERED": "1"},
        log=log,
        stop_within_s=240 if log is None else 30,
    )


def _write_config(
    folder: Path, model: OllamaModel, *, port: int, data_dir: Path, clouds: bool
) -> Path:
    """Write lakehouse.toml; without ``clouds`` only local Ollama can be registered.

    A JSON string is a TOML string as well.
    """
    lines = [
        "[chatd]",
        f'bind = "{HOST}:{port}"',
        f"ollama_url = {json.dumps(model.url)}",
        f"data_dir = {json.dumps(str(data_dir))}",
        # Somebody reads along.
        'log_format = "text"',
    ]
    if not clouds:
        for name in _CLOUDS:
            lines += [f"[chatd.providers.{name}]", "enabled = false"]
    lines += ["[models]", f"{_TIER} = {json.dumps(model.name)}", ""]
    path = folder / "lakehouse.toml"
    path.write_text("\n".join(lines))
    return path


def _without_keys() -> dict[str, str]:
    """The environment without the cloud providers' keys: the demo must cost nothing."""
    return {name: value for name, value in os.environ.items() if name not in _KEYS}


def _chat(client: Client, model: str, title: str) -> None:
    print(f"\n{title}\n  question    {_QUESTION}")
    _show(client.post("/v1/chat", _body(model), timeout_s=_ANSWER_WITHIN_S))


def _job(client: Client, model: str) -> None:
    """Queue a job, and follow its record to the end by long polls."""
    print(f"\n2. A job that nobody waits for: POST /v1/jobs\n  question    {_QUESTION}")
    record = client.post("/v1/jobs", _body(model), timeout_s=10)
    path = f"/v1/jobs/{record['id']}"
    print(f"  accepted    {record['id']}, {record['state']}; asking GET {path}?wait=20")
    until = time.monotonic() + _ANSWER_WITHIN_S
    while record["state"] in ("queued", "waiting", "calling"):
        if time.monotonic() > until:
            raise DemoError(f"{path} is still {record['state']} after {_ANSWER_WITHIN_S} s")
        record = client.get(f"{path}?wait=20", timeout_s=30)
    if record["state"] != "succeeded":
        raise DemoError(f"{path} ended as {record['state']}: {record['error']}")
    print(f"  succeeded   attempt {len(record['attempts'])}, {record['attempts'][-1]['worker']}")
    _show(record["response"])


def _body(model: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": _QUESTION}]
    return {"model": model, "messages": messages, "max_tokens": 64, "temperature": 0.2, "seed": 7}


def _show(answer: dict[str, Any]) -> None:
    """Print an answer with its facts; one without text or counts is a failure."""
    if not answer["content"].strip() or not answer["input_tokens"] or not answer["output_tokens"]:
        raise DemoError(f"an answer without content or without token counts: {answer}")
    print(f"  answer      {answer['content'].strip()}")
    print(f"  by          {answer['upstream_model']} of {answer['provider']}", end=", ")
    print(f"{answer['input_tokens']} tokens in, {answer['output_tokens']} out", end=", ")
    print(f"{answer['queue_ms']} ms in the queue, {answer['latency_ms']} ms upstream")


def _evaluate(url: str) -> None:
    """Run the demo's evaluation, and leave its report where it is found after the demo."""
    print("\n5. An evaluation: two settings of the model, a scorer and a judge: chatd eval run")
    _REPORT.parent.mkdir(parents=True, exist_ok=True)
    # A model this small does not always give a verdict that can be read.
    watching = ("--interval", "5", "--min-coverage", "0.5")
    run_chatd("eval", "run", str(_SUITE), "--report", str(_REPORT), *watching, "--url", url)


def _smoke(url: str, model: str) -> None:
    print("\n6. The acceptance checks: deploy/smoke.sh")
    command = ["/bin/bash", str(_ROOT / "deploy" / "smoke.sh"), url, model]
    try:
        subprocess.run(command, check=True, timeout=_SMOKE_WITHIN_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise DemoError(f"deploy/smoke.sh: {error}") from error


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


if __name__ == "__main__":
    main()
