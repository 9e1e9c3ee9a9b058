"""The books of the job store: what is counted somewhere must be what the records say."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import redis

from chat.jobs import JobState
from chat.types import Lane

__all__ = ["Books", "balance"]

_ZSETS = ("queued", "leases", "parked", "due", "deadlines", "terminal", "jobs")
_HASHES = ("acct", "parked", "job", "lane", "calls", "in_use", "budget")


@dataclass(frozen=True, slots=True)
class Books:
    """What Redis has, read in two round trips: ``jobs`` and ``requests`` by id, else by key."""

    jobs: dict[str, dict[str, str]]
    requests: frozenset[str]
    hashes: dict[str, dict[str, str]]
    zsets: dict[str, dict[str, float]]

    @classmethod
    def read(cls, client: redis.Redis) -> Books:
        """Read everything of which something is counted."""
        named = [str(key).partition(":") for key in client.keys("*")]
        keys = [("".join(parts), parts[0], parts[1]) for parts in named]
        # The hash `parked` names the budgets of the sorted sets `parked:<budget>:<lane>`.
        zsets = [
            key for key, kind, more in keys if kind in _ZSETS and (kind != "parked" or bool(more))
        ]
        hashes = [
            key for key, kind, more in keys if kind in _HASHES and (kind != "parked" or not more)
        ]
        pipeline = client.pipeline(transaction=True)
        for key in hashes:
            pipeline.hgetall(key)
        for key in zsets:
            pipeline.zrange(key, 0, -1, withscores=True)
        found = pipeline.execute()
        all_hashes = dict(zip(hashes, found, strict=False))
        sets = zip(zsets, found[len(hashes) :], strict=True)
        return cls(
            jobs={k[4:]: value for k, value in all_hashes.items() if k.startswith("job:")},
            requests=frozenset(job_id for kind, _, job_id in named if kind == "request"),
            hashes={k: value for k, value in all_hashes.items() if not k.startswith("job:")},
            zsets={key: dict(members) for key, members in sets},
        )

    def numbers(self, key: str) -> dict[str, int]:
        """The fields of a hash that are whole numbers."""
        fields = self.hashes.get(key, {}).items()
        return {name: int(value) for name, value in fields if value.lstrip("-").isdigit()}

    def places(self, job_id: str) -> list[str]:
        """Where a job stands, as keys: its queue, its budget's parking, ``due`` or its calls."""
        found = []
        for key, members in self.zsets.items():
            kind = key.partition(":")[0]
            if kind in {"queued", "parked", "due"} and job_id in members:
                found.append(key)
            elif kind == "leases":
                found += [key for member in members if member.startswith(f"{job_id} ")]
        return found


def balance(client: redis.Redis) -> None:
    """accepted = the sum over the states + retired, each count is true, each job in one place."""
    books = Books.read(client)
    acct = books.numbers("acct")
    live = Counter(job["state"] for job in books.jobs.values())

    assert acct.get("accepted", 0) == live.total() + acct.get("retired", 0)
    assert {state: acct.get(state, 0) for state in JobState} == {s: live[s] for s in JobState}
    assert acct.get("bytes", 0) == sum(int(job["bytes"]) for job in books.jobs.values())
    assert min(acct.values(), default=0) >= 0
    _places(books)
    _lanes(books)
    _budgets(books)
    _permits(books)


def _places(books: Books) -> None:
    """A job stands in exactly one place, and nothing that is over stands anywhere."""
    live, over = set(), set()
    for job_id, job in books.jobs.items():
        parked = f"parked:{job['budget']}:{job['lane']}"
        may_be = {
            "queued": [[f"queued:{job['queue']}"]],
            "waiting": [[parked], ["due"]],
            "calling": [[f"leases:{job['provider']}"]],
        }.get(job["state"], [[]])
        assert books.places(job_id) in may_be, (job_id, job, books.places(job_id))
        if JobState(job["state"]).terminal:
            over.add(f"{job_id} {job['state']}")
        else:
            live.add(job_id)
    standing = [key for key in books.zsets if key.partition(":")[0] in {"queued", "parked", "due"}]
    assert {member for key in standing for member in books.zsets[key]} <= live
    assert set(books.zsets.get("deadlines", ())) == live
    assert books.requests == live
    assert set(books.zsets.get("terminal", ())) == over
    assert set(books.zsets.get("jobs", ())) == set(books.jobs)
    # The keeper finds what is parked by this one hash.
    parkings = {key.partition(":")[2] for key in standing if key.startswith("parked:")}
    assert {key.rpartition(":")[0] for key in parkings} <= set(books.hashes.get("parked", ()))


def _lanes(books: Books) -> None:
    """What waits in a lane, and its bytes."""
    for queue in {job["queue"] for job in books.jobs.values()}:
        mine = [job for job in books.jobs.values() if job["queue"] == queue]
        counted = books.numbers(f"lane:{queue}")
        waiting = sum(job["state"] in {"queued", "waiting"} for job in mine)
        held = sum(int(job["bytes"]) for job in mine)
        assert (counted.get("jobs", 0), counted.get("bytes", 0)) == (waiting, held)


def _budgets(books: Books) -> None:
    """How many jobs of a budget lie in the queues, and how many of them came back to the front."""
    in_queue = [job for job in books.jobs.values() if job["state"] == "queued"]
    queued = Counter((job["budget"], job["lane"]) for job in in_queue)
    front = Counter((job["budget"], job["lane"]) for job in in_queue if job["seq"] == "0")
    known = {key.removeprefix("budget:") for key in books.hashes if key.startswith("budget:")}
    for budget in known | {budget for budget, _ in queued}:
        counted = books.numbers(f"budget:{budget}")
        for lane in Lane:
            assert counted.get(lane, 0) == queued[budget, lane], (budget, lane)
            assert counted.get(f"front {lane}", 0) == front[budget, lane], (budget, lane)


def _permits(books: Books) -> None:
    """One permit per running call, counted alike in every way it is counted."""
    providers = {key.partition(":")[2] for key in books.hashes if key.startswith("in_use:")}
    for provider in providers | {job["provider"] for job in books.jobs.values()}:
        running = {
            f"{job_id} {job['token']}": f"{job['lane']} {job['budget']}"
            for job_id, job in books.jobs.items()
            if (job["provider"], job["state"]) == (provider, "calling")
        }
        counted = books.numbers(f"in_use:{provider}")
        assert set(books.zsets.get(f"leases:{provider}", ())) == set(running)
        assert books.hashes.get(f"calls:{provider}", {}) == running
        by_lane = Counter(call.split(" ", 1)[0] for call in running.values())
        by_budget = Counter("budget " + call.split(" ", 1)[1] for call in running.values())
        lanes = {lane: counted.pop(lane, 0) for lane in Lane}
        assert lanes == {lane: by_lane[lane] for lane in Lane}
        assert counted == dict(by_budget)
