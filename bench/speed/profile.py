"""Where the time goes: flame graphs of front end and worker under load, by py-spy."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from bench.processes import family
from bench.speed.machine import FOLDER
from bench.speed.measure import load_on, measured
from bench.speed.passes import Plan, running, tell
from tests.servers import Child

__all__ = ["profile"]

#: Samples in a second. A worker has hundreds of threads: to stop them all for each sample would
#: leave it half its speed and a picture of something else, so that py-spy reads them as they run.
_SAMPLING = ("--rate", "50", "--nonblocking")
#: Of its threads only the one that has the interpreter counts: the others look busy to py-spy.
_WORKER = ("--gil",)


def profile(plan: Plan) -> None:
    """Record both while the load of the plan goes on, into var/bench. Needs py-spy."""
    spy = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if spy is None:
        raise SystemExit("there is no py-spy on PATH; pip install py-spy")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with running("chatd", plan.delay_s) as (target, upstream):
        # The last of the front end's processes serves; the first only watches it.
        watched: dict[str, tuple[int, tuple[str, ...]]] = {
            "front-end": (family(target.parts["front end"])[-1], ()),
            "worker": (target.parts["worker"], _WORKER),
        }
        seconds = max(int(plan.seconds), 1)
        for connections in plan.connections:
            spies = []
            for name, (pid, further) in watched.items():
                file = FOLDER / f"{name}-{connections}.svg"
                words = [*_SAMPLING, *further, "--duration", str(seconds), "--output", str(file)]
                command = [spy, "record", "--pid", str(pid), *words]
                spies.append((file, Child(command, FOLDER / f"{name}-py-spy.log")))
            for _, child in spies:
                child.start()
            load = load_on(target, connections, seconds=seconds, warm_s=plan.warm_s[0])
            tell(measured("chatd", 1, target, upstream, load))
            for file, child in spies:
                print(f"{file}: {'written' if child.wait(60) == 0 else child.output()[-500:]}")
