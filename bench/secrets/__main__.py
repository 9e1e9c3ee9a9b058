"""Whether a key comes to light when everything goes wrong: a table of what was searched.

    python -m bench.secrets

chatd's processes run on loopback with seven secrets, before an upstream that answers in every way
an upstream can and repeats the key wherever it finds room for it. The exit code is 1 when a piece
of a secret was found, or when an error class was not provoked.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bench.secrets.scene import SECRETS, Scene
from chat.errors import error_classes
from tests.leaks import leaks, spellings


def main() -> int:
    """Play the scene and search; 1 when something was found or left out."""
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder))
        try:
            scene.stack.start()
            scene.ask()
            scene.break_down()
            return _told(scene)
        finally:
            scene.stack.stop()
            scene.upstream.close()


def _told(scene: Scene) -> int:
    found: list[str] = []
    print(f"{'searched':<34}{'places':>8}{'bytes':>14}{'found':>7}")
    for kind, places in scene.places().items():
        leaked = leaks(SECRETS, places)
        size = sum(len(content) for _, content in places)
        print(f"{kind:<34}{len(places):>8,}{size:>14,}{len(leaked):>7}")
        found += leaked
    provoked = scene.codes()
    classes = {cls.code for cls in error_classes()}
    print(
        f"{len(SECRETS)} secrets in {len(spellings('x' * 32))} spellings; {len(scene.errors):,} "
        f"calls and {len(scene.refusals)} refusals; {len(classes & provoked)} of {len(classes)} "
        "error classes provoked"
    )
    for leak in found:
        print(f"FOUND {leak}")
    for code in sorted(classes - provoked):
        print(f"NOT PROVOKED {code}")
    return 1 if found or classes - provoked else 0


if __name__ == "__main__":
    sys.exit(main())
