"""Workers that are killed with every permit in their hands: none is lost."""

from __future__ import annotations

import time

from bench.scenes.scene import Report, Run, Scene, percentile, running
from chat.types import Lane
from tests.servers import Child
from tests.waiting import eventually

__all__ = ["kill"]

PERMITS = 8
#: A lease, the keeper's look each second, and a heartbeat.
_LEASE_S = 30.0 + 1.0 + 5.0
SETTINGS = """
on_lost_call_interactive = "retry"
max_lost_calls = 1000
"""


def kill(report: Report, run: Run) -> None:
    """kill -9 of the worker that has all permits: how soon all of them work again."""
    with running(concurrency=PERMITS, settings=SETTINGS) as scene:
        scene.upstream.hold()
        # Interactive, since batch jobs alone may not have the last permit. Each kill also loses the
        # wake-ups that waited in a slot; their jobs come back after half a minute.
        ids = scene.admit_many(25 * PERMITS, Lane.INTERACTIVE, tag="held")
        _full(scene, 0.0)
        worker = scene.stack.workers[scene.provider]
        report.say("kill and restart: seconds to full capacity", f"{_again(scene, worker):.2f}")
        if not run.quick:
            worker = _without_restart(report, scene, worker)
        kills = run.count(100, 5)
        times = [_again(scene, worker) for _ in range(kills)]
        report.say(
            f"{kills} kills in a row: seconds to full capacity, median / worst",
            f"{percentile(times, 0.5):.2f} / {max(times):.2f}",
        )
        _nothing_lost(report, scene, ids, kills)


def _full(scene: Scene, since: float, within_s: float = 60.0) -> float:
    """Wait until every permit has been used for a call since then; the moment it was so."""

    def began() -> list[float]:
        return [seen.at for seen in scene.accepted() if seen.at >= since]

    eventually(lambda: len(began()) >= PERMITS, within_s=within_s, what="all permits in use")
    eventually(lambda: scene.upstream.in_flight == PERMITS, what="the dead calls are gone")
    return began()[PERMITS - 1]


def _again(scene: Scene, worker: Child) -> float:
    """Kill a worker and start it again; seconds from the kill to full capacity."""
    worker.kill()
    killed = time.monotonic()
    worker.start()
    return _full(scene, killed) - killed


def _without_restart(report: Report, scene: Scene, worker: Child) -> Child:
    """The dead worker stays dead, and the keeper frees its permits for another one.

    Returns the other one, which has all permits at the end.
    """
    other = scene.worker()
    client = scene.stack.redis.client
    eventually(lambda: client.zcard(f"workers:{scene.provider}") == 2, what="the second worker")
    worker.kill()
    killed = time.monotonic()
    seconds = _full(scene, killed, within_s=2 * _LEASE_S) - killed
    report.say("kill without restart, a second worker: seconds", f"{seconds:.2f}")
    report.rule(
        f"the second worker has all permits within a lease and its looks ({_LEASE_S:.0f} s)",
        seconds <= _LEASE_S,
    )
    return other


def _nothing_lost(report: Report, scene: Scene, ids: list[str], kills: int) -> None:
    client = scene.stack.redis.client
    leases = f"leases:{scene.provider}"
    report.say("permits held by the living worker", client.zcard(leases))
    scene.upstream.release()
    released = time.monotonic()
    eventually(scene.over, within_s=120, what="every job ends")
    report.say("seconds until every job had ended", f"{time.monotonic() - released:.1f}")
    left = client.zcard(leases), client.hgetall(f"in_use:{scene.provider}")
    report.say("permits and calls in the books once all is over", left)
    report.rule(
        f"after {kills} kills no permit is taken",
        left[0] == 0 and all(int(count) == 0 for count in left[1].values()),
    )
    report.rule("every job was answered", scene.endings(ids) == {"succeeded": len(ids)})
    # The proof is in the using.
    scene.upstream.hold()
    began = time.monotonic()
    more = scene.admit_many(2 * PERMITS, Lane.INTERACTIVE, tag="afterwards")
    _full(scene, began)
    report.rule(
        "every permit can be used", scene.upstream.in_flight == client.zcard(leases) == PERMITS
    )
    scene.upstream.release()
    eventually(scene.over, within_s=60, what="every job ends")
    report.rule("and those were answered", scene.endings(more) == {"succeeded": len(more)})
    report.rule("never more calls than permits", scene.upstream.peak <= PERMITS)
    scene.books(report)
