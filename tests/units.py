"""The units of ``deploy/systemd``: read, to be compared with the code, and run by tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.servers import ROOT

__all__ = ["CHATD", "SERVICES", "UNITS", "Unit", "needs"]

UNITS = ROOT / "deploy" / "systemd"
#: The services that are chatd itself.
SERVICES = ("chatd-api.service", "chatd-keeper.service", "chatd-worker@.service")
#: The command as the units have it.
CHATD = "/opt/chatd/bin/chatd"


def needs(*programs: str) -> None:
    """Skip the test without these programs; where tests have to be complete it fails."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        assert "CHATD_CI" not in os.environ, f"CI needs {', '.join(missing)}"
        pytest.skip(f"there is no {', '.join(missing)}")


class Unit:
    """One unit file; ``instance`` is what follows the "@" of a template's name."""

    def __init__(self, name: str, instance: str = "") -> None:
        self.instance = instance
        self.lines = [
            line.replace("%i", instance)
            for line in (UNITS / name).read_text("utf-8").splitlines()
            if line and not line.startswith("#")
        ]

    def all(self, key: str) -> list[str]:
        """The values of a key, in their order."""
        pairs = (line.partition("=") for line in self.lines)
        return [value for name, _, value in pairs if name == key]

    def one(self, key: str) -> str:
        """The value of a key that is there once."""
        (value,) = self.all(key)
        return value

    def arguments(self) -> list[str]:
        """What chatd is started with."""
        command, *arguments = self.one("ExecStart").split()
        assert command == CHATD
        return arguments

    def after(self, key: str) -> list[str]:
        """All lines from this key on, up to the next section."""
        begin = next(n for n, line in enumerate(self.lines) if line.startswith(f"{key}="))
        rest = self.lines[begin:]
        end = next(n for n, line in enumerate(rest) if line.startswith("["))
        return rest[:end]

    def environment(self, etc: Path) -> dict[str, str]:
        """Its variables, with ``etc`` in the place of /etc."""
        found = dict(entry.split("=", 1) for entry in self.all("Environment"))
        for name in self.all("EnvironmentFile"):
            lines = (etc / Path(name).relative_to("/etc")).read_text("utf-8").splitlines()
            found |= dict(line.split("=", 1) for line in lines if line and line[0] != "#")
        return {name: value.replace("/etc/", f"{etc}/") for name, value in found.items()}
