"""Calls in a process of their own, so that what each takes, reaches and says can be told.

A line of JSON on standard input is a call, and one on standard output is what became of it.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from chat.builder import build_model_source, build_provider
from chat.errors import ChatError
from chat.partial import Partial
from chat.settings import ChatdConfig
from chat.types import JSON, Deadline
from tests.leaks import leaks
from tests.wire.providers import call, plain_request

__all__ = ["KEYS", "Caller", "Outcome"]

#: The key of each provider, long enough that a piece of it is no coincidence.
KEYS = {
    "ollama_cloud": "0a7f4c19e2d84b6fa3c5.OllamaCloud+Key/51b2==",
    "openrouter": "sk-or-v1-5d0c9b7e3f1a48d2b6e4c8a07f935d1e2b4c6a80",
    "opencode": "sk-opencode-Qw7ZtR2mX9vKc4LpYb6NhJ3sDf8GaE5u",
    "kimi": "sk-kimi-Uo4Ie8Aa2Yy6Ww0Bb3Nn7Mm5Kk1Jj9Hh",
}

#: The paths of the base URLs, as the real ones have them.
PATHS = {"openrouter": "/api/v1", "opencode": "/zen/v1", "kimi": "/coding/v1"}

_MIB = 1024 * 1024


@dataclass(frozen=True)
class Outcome:
    """What became of one call.

    ``code`` is that of the error, ``""`` where there was an answer; ``said`` is all that a caller
    would get to read, cut where it is long. ``unforeseen`` is the traceback of anything that is no
    ChatError. ``reached`` has every host and port that was connected to, ``names`` every host that
    was looked up, ``leaked`` where the key came to light.
    """

    code: str
    said: str
    wire: JSON
    unforeseen: str
    grew_mib: float
    reached: list[list[Any]]
    names: list[str]
    leaked: list[str]


class Caller:
    """The process; use it as a context manager."""

    def __init__(self) -> None:
        self._grew: list[float] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            cwd=Path(__file__).parents[2],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()

    def call(
        self,
        name: str,
        url: str,
        *,
        within_s: float = 60.0,
        models: bool = False,
        pieces: bool = False,
    ) -> Outcome:
        """One chat of provider ``name``, or one look at its models, at the upstream ``url``.

        With ``pieces`` the answer is asked for piece by piece.
        """
        order = {
            "name": name,
            "url": url,
            "within_s": within_s,
            "models": models,
            "pieces": pieces,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the process ended with {self._process.wait(10)}"
        outcome = Outcome(**json.loads(answer))
        self._grew.append(outcome.grew_mib)
        return outcome

    def summary(self) -> str:
        """How many calls there were, and what the dearest took."""
        return f"{len(self._grew)} calls, the dearest took {max(self._grew, default=0):.0f} MiB"


class _Network:
    """What this process connects to and looks up, told by the interpreter itself."""

    def __init__(self) -> None:
        self.reached: list[Any] = []
        self.names: list[str] = []
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect":
            self.reached.append(list(arguments[1][:2]))
        if event == "socket.getaddrinfo":
            self.names.append(str(arguments[0]))


def _memory(field: str) -> int:
    """A figure of this process' memory in KiB."""
    status = Path("/proc/self/status").read_text("ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field))


def _config(name: str, url: str) -> ChatdConfig:
    """chatd with ``name`` at a scripted upstream."""
    config = ChatdConfig(ollama_url=url)
    base_url = url + PATHS.get(name, "")
    provider = replace(config.providers[name], base_url=base_url, key_file="")
    if name == "opencode":
        provider = replace(provider, go_base_url=f"{url}/zen/go/v1")
    return replace(config, providers={**config.providers, name: provider})


def _made(order: JSON) -> JSON:
    """The call that ``order`` asks for, made; its answer as JSON."""
    config = _config(order["name"], order["url"])
    environ = {
        provider.key_env: KEYS[name]
        for name, provider in config.providers.items()
        if provider.key_env
    }
    if order["models"]:
        source = build_model_source(config, order["name"], environ)
        found = source.fetch(Deadline.after(order["within_s"]))
        models = [[model.id, model.created] for model in found.models]
        return {"models": models, "left_out": found.left_out}
    provider = build_provider(config, order["name"], environ)
    request = plain_request(order["name"])
    deltas = Partial().add if order["pieces"] else None
    return call(provider, request, within_s=order["within_s"], deltas=deltas).to_wire()


def _outcome(order: JSON, network: _Network) -> JSON:
    network.reached.clear()
    network.names.clear()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # The peak counts from here.
    before = _memory("VmRSS")
    code, unforeseen, wire = "", "", {}
    try:
        wire = _made(order)
    except ChatError as error:
        code, wire = error.code, error.to_wire()
    except BaseException:  # noqa: BLE001 - whatever it is, it is the finding
        unforeseen = traceback.format_exc()
    grew = _memory("VmHWM") - before
    said = json.dumps(wire, allow_nan=False, ensure_ascii=False).encode("utf-8")
    ends = said if len(said) < _MIB else said[:_MIB] + said[-_MIB:]
    return {
        "code": code,
        "said": said[:2000].decode("utf-8", "replace"),
        "wire": wire if len(said) < _MIB else {},
        "unforeseen": unforeseen,
        "grew_mib": grew / 1024,
        "reached": network.reached,
        "names": network.names,
        "leaked": leaks({"the key": KEYS.get(order["name"], KEYS["kimi"])}, [("it", ends)]),
    }


def _serve() -> None:
    network = _Network()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_outcome(json.loads(line), network)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
