"""The ``chatd`` command as the demo runs it: its lines are shown as they come."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from deploy.demo.processes import DemoError

__all__ = ["run_chatd"]

#: Seconds for one command, on a machine that is busy with other things.
_WITHIN_S = 600


def run_chatd(*arguments: str) -> list[str]:
    """Run the command, print its lines as they come, and return them.

    Raises ``DemoError`` for an exit code other than 0, as when an item failed.
    """
    script = Path(sys.executable).with_name("chatd")
    told = []
    with subprocess.Popen(
        [sys.executable, str(script), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        text=True,
    ) as process:
        watchdog = threading.Timer(_WITHIN_S, process.kill)
        watchdog.start()
        try:
            for line in process.stdout or ():
                told.append(line.strip())
                print(f"  {line.rstrip()}")
        except BaseException:
            # Nothing of the demo may stay, and this would go on for as long as it is patient.
            process.kill()
            raise
        finally:
            watchdog.cancel()
    if process.returncode:
        raise DemoError(f"chatd {' '.join(arguments[:2])}: exit code {process.returncode}")
    return told
