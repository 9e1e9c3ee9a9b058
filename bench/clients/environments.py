"""The environments of programs that chatd does not depend on, each below var/bench."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.servers import ROOT

__all__ = ["CLIENTS", "Client"]

_FOLDER = ROOT / "var" / "bench"
#: LiteLLM would fetch its table of costs from the network.
_ENVIRON = {"PYTHONPATH": str(ROOT), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}


@dataclass(frozen=True, slots=True)
class Client:
    """A program: the module that runs it, and what has to be installed; nothing for one of ours."""

    module: str
    packages: tuple[str, ...] = ()

    def folder(self, name: str) -> Path:
        """Its environment."""
        return _FOLDER / f"client-{name}"

    def python(self, name: str) -> Path | None:
        """The interpreter that runs it; ``None`` as long as it is not installed."""
        if not self.packages:
            return Path(sys.executable)
        found = self.folder(name) / "bin" / "python"
        return found if (self.folder(name) / "installed").exists() else None

    def install(self, name: str) -> None:
        """Make its environment anew."""
        folder = self.folder(name)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *self.packages], check=True)
        (folder / "installed").touch()

    def run(self, name: str, url: str, model: str, kind: str) -> int:
        """Let it ask a chatd; its exit code. What it says goes to the terminal.

        What it keeps lies in a home folder that is thrown away.
        """
        python = self.python(name)
        assert python is not None, f"not installed: python -m bench.clients install {name}"
        command = [str(python), "-m", self.module, url, model, kind]
        with tempfile.TemporaryDirectory(prefix=f"client-{name}-") as home:
            environ = {**os.environ, **_ENVIRON, "HOME": home, "INSPECT_LOG_DIR": home}
            done = subprocess.run(command, cwd=ROOT, env=environ, check=False, timeout=900)
        return done.returncode


#: By name, in the order in which they run.
CLIENTS = {
    "plain": Client("bench.clients.plain"),
    "openai": Client("bench.clients.official"),
    "litellm": Client("bench.clients.lite", ("litellm==1.108.7",)),
    "inspect": Client("bench.clients.inspecting", ("inspect-ai==0.3.285", "openai")),
}
