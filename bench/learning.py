"""What the learning of rates does against limits that nobody configured: a simulation.

    python -m bench.learning [--alternatives]

It runs the shipped ``chat/lua/rates.lua`` in a Lua interpreter, on simulated time, against
simulated upstreams. One line per scenario: the share that was sent of what the upstream allowed
(outside the cool-downs it asked for), the part of all calls that was refused, mean and worst of
eight seeds, and the cool-downs. The exit code is 1 when a claim does not hold. With
``--alternatives`` it also prints what other constants and rules would have done. It takes half
a minute of CPU, or a whole one with them; no sockets, no clock.

How work arrives is modelled on the real thing. The threads of all workers share one budget. A job
of the interactive lane that is told to wait a second or less does so in its thread and asks again
1-3 ms late. All others are parked; a keeper that looks when the rate has room, at most every 20 ms,
sends them out 2-5 ms before they ask. An answer takes the upstream's latency, a refusal 10-40 ms.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lupa.lua51 import LuaRuntime  # type: ignore[import-untyped]

import chat
from bench.simulated import Bucket, Places, Upstream, Window

RATES = Path(chat.__file__).parent / "lua" / "rates.lua"
EPOCH_MS = 1_790_000_000_000  # Where the simulated clock stands at the start of a run.
SEEDS = range(1, 9)

# What the scripts around rates.lua do with it, reduced to the rate.
_GATEWAY = """
return function(limit)
  local b = {}
  local function shut(now)
    return b.closed_until and b.closed_until > now and b.closed_until - now
  end
  return {
    start = function(now)
      local ms = shut(now) or rates_wait(b, limit, now, 0)
      if ms <= 0 then rates_charge(b, limit, now, 0) end
      return ms
    end,
    room = function(now)
      if shut(now) then return 0 end
      local copy, count = {}, 0
      for name, value in pairs(b) do copy[name] = value end
      while count < 100 and rates_wait(copy, limit, now, 0) <= 0 do
        rates_charge(copy, limit, now, 0)
        count = count + 1
      end
      return count
    end,
    look = function(now)
      local ms = shut(now) or rates_wait(b, limit, now, 0)
      if ms > 0 then return ms end
      local rate = rates_current(b, limit, now)
      return rate and 1000 / rate or 20
    end,
    accepted = function(now, started) rates_accepted(b, limit, now, started) end,
    refused = function(now, started, retry_ms, chance)
      return rates_refused(b, limit, now, started, retry_ms, chance)
    end,
  }
end
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """The shipped file, or one that differs: other constants, and Lua put behind its functions."""

    name: str
    constants: Mapping[str, float] = field(default_factory=dict)
    lua: str = ""

    def load(self, limit: Mapping[str, object]) -> Any:
        """A budget with this rule: a Lua table of functions."""
        source = RATES.read_text(encoding="utf-8")
        for name, value in self.constants.items():
            old = re.compile(rf"^local {name} = \S+( / \d+)?", re.MULTILINE)
            source, found = old.subn(f"local {name} = {value}", source)
            if found != 1:
                raise ValueError(f"{RATES.name} defines {name} {found} times; it must be once")
        lua = LuaRuntime()
        return lua.execute(source + self.lua + _GATEWAY)(lua.table_from(limit))


SHIPPED = Rule("as shipped")


# -- the gateway ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Work:
    """What is offered, and by how many permits it is carried."""

    seconds: int
    per_second: float = 0  # Poisson arrivals
    at_once: int = 0  # jobs there at the start,
    again_s: float = 0  # and again so often, when not 0
    interactive: bool = True
    permits: int = 32
    latency_ms: tuple[float, float] = (50, 500)
    limit: Mapping[str, object] = field(default_factory=lambda: {"learn": True})


class Run:
    """One run: events in the order of simulated time."""

    def __init__(self, rule: Rule, upstream: Upstream, work: Work, seed: int) -> None:
        self._budget = rule.load(work.limit)
        self._upstream = upstream
        self._work = work
        self._chance = random.Random(seed)  # noqa: S311 - a simulation repeats itself
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = itertools.count()
        self._threads = work.permits + (max(2, work.permits // 4) if work.interactive else 0)
        self._permits = work.permits
        self._queued = 0
        self._parked = 0
        self._on_the_way = 0
        self._waiting = 0
        self.offered = 0
        self.answered = 0
        self.accepted_at: list[float] = []
        self.refused_at: list[float] = []
        self.cool_downs = 0
        if work.at_once:
            self._at(0, self._burst)
        if work.per_second:
            self._at(0, self._arrival)
        self._at(0, self._keeper)
        while self._events and self._events[0][0] < work.seconds * 1000:
            now, _, step, arguments = heapq.heappop(self._events)
            step(now, *arguments)

    def share(self, begin_s: float) -> float:
        """Calls accepted from ``begin_s`` on, as a part of those allowed."""
        begin, end = begin_s * 1000, self._work.seconds * 1000
        return sum(at >= begin for at in self.accepted_at) / self._upstream.allowed(begin, end)

    def refused(self) -> float:
        """The part of all upstream calls that was refused."""
        return len(self.refused_at) / max(1, len(self.refused_at) + len(self.accepted_at))

    def lost(self) -> int:
        """Jobs that were offered and are nowhere."""
        in_calls = self._work.permits - self._permits
        held = self._queued + self._parked + self._on_the_way + self._waiting + in_calls
        return self.offered - self.answered - held

    def followed_s(self, changed_s: float, per_second: float) -> float:
        """Seconds from a change until ten seconds' calls are within 15 % of what is allowed."""
        for second in range(int(changed_s), self._work.seconds - 10):
            begin = second * 1000
            rate = sum(begin <= at < begin + 10_000 for at in self.accepted_at) / 10
            if abs(rate / per_second - 1) <= 0.15:
                return second - changed_s
        return math.inf

    def _at(self, when: float, step: Callable[..., None], *arguments: object) -> None:
        heapq.heappush(self._events, (when, next(self._order), step, arguments))

    def _offer(self, now: float, jobs: int) -> None:
        self.offered += jobs
        self._queued += jobs
        self._fetch(now)

    def _burst(self, now: float) -> None:
        self._offer(now, self._work.at_once)
        if self._work.again_s:
            self._at(now + self._work.again_s * 1000, self._burst)

    def _arrival(self, now: float) -> None:
        self._offer(now, 1)
        gap = self._chance.expovariate(self._work.per_second / 1000)
        self._at(now + gap, self._arrival)

    def _fetch(self, now: float) -> None:
        while self._queued and self._threads and self._permits:
            self._queued -= 1
            self._threads -= 1
            self._waiting += 1
            self._start(now)

    def _start(self, now: float) -> None:
        if not self._permits:
            self._at(now + 20, self._start)
            return
        started = EPOCH_MS + math.floor(now)
        wait = self._budget.start(started)
        if wait > 0 and self._work.interactive and wait <= 1000:
            self._at(now + wait + self._chance.uniform(1, 3), self._start)
            return
        self._waiting -= 1
        if wait > 0:
            self._threads += 1
            self._parked += 1
            return
        self._permits -= 1
        self._at(now + self._chance.uniform(2, 8), self._reach, started)

    def _reach(self, now: float, started: int) -> None:
        retry_ms = self._upstream.arrive(now)
        if retry_ms is None:
            self.accepted_at.append(now)
            self._at(now + self._chance.uniform(*self._work.latency_ms), self._answer, started)
        else:
            self._at(now + self._chance.uniform(10, 40), self._refuse, started, retry_ms)

    def _answer(self, now: float, started: int) -> None:
        self._upstream.leave()
        self.answered += 1
        self._budget.accepted(EPOCH_MS + math.floor(now), started)
        self._give_back(now)

    def _refuse(self, now: float, started: int, retry_ms: float) -> None:
        self.refused_at.append(now)
        self._parked += 1
        moment, chance = EPOCH_MS + math.floor(now), self._chance.random()
        if self._budget.refused(moment, started, retry_ms or None, chance):
            self.cool_downs += 1
        self._give_back(now)

    def _give_back(self, now: float) -> None:
        self._threads += 1
        self._permits += 1
        self._fetch(now)

    def _keeper(self, now: float) -> None:
        pause = 250.0
        if self._parked:
            moment = EPOCH_MS + math.floor(now)
            room = min(self._budget.room(moment) - self._on_the_way, self._permits, self._parked)
            for _ in range(max(0, room)):
                self._parked -= 1
                self._on_the_way += 1
                self._at(now + self._chance.uniform(2, 5), self._release)
            pause = max(20.0, min(pause, self._budget.look(moment)))
        self._at(now + pause + self._chance.uniform(0.5, 2.5), self._keeper)

    def _release(self, now: float) -> None:
        self._on_the_way -= 1
        self._queued += 1
        self._fetch(now)


# -- scenarios and claims -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scenario:
    """A limit, the work, and the claims: a share at least in every run, refused at most on average.

    One run may refuse half as much again: what is on its way before the first 429 is chance.
    """

    name: str
    upstream: Callable[[], Upstream]
    work: Work
    share: float = 0
    refused: float = 1
    from_s: float = 10  # The share counts from here on.
    follows: Sequence[tuple[float, float, float]] = ()  # a change at s, to calls per s, within s

    def runs(self, rule: Rule = SHIPPED, seeds: Sequence[int] = SEEDS) -> list[Run]:
        """One run per seed."""
        return [Run(rule, self.upstream(), self.work, seed) for seed in seeds]


def _bucket(burst: float, retry_ms: float = 0) -> Callable[[], Upstream]:
    return lambda: Bucket([(0, 20)], burst, retry_ms)


def _window(most: int, *, sliding: bool = False, says_when: bool = False) -> Callable[[], Upstream]:
    return lambda: Window([(0, most)], sliding, says_when)


def _changing(*steps: tuple[float, float]) -> Callable[[], Upstream]:
    return lambda: Bucket(steps, 5)


_MINUTES = Work(600, 2, permits=16)
_KNOWN = Work(600, 2, permits=16, limit={"learn": True, "rpm": 20})
_BUSY = Work(600, 40, permits=64, latency_ms=(300, 3000))
_SLOW = Work(600, 3, permits=16, latency_ms=(9000, 11000))
_UNLEARNED = Work(60, 100, limit={"learn": False})
_ONE_S = Work(120, 20, permits=16, latency_ms=(1000, 1000))
_ABOUT_ONE_S = Work(120, 20, permits=16, latency_ms=(500, 1500))
_BURSTS = Work(1200, at_once=30, again_s=60, permits=16)
_FEWER = [(0, 20), (900_000, 5), (1_800_000, 20)]

SCENARIOS = [
    *(
        Scenario(
            f"a 20/s, burst {burst}, {'Retry-After 1 s' if retry_ms else 'no Retry-After'}, {lane}",
            _bucket(burst, retry_ms),
            Work(60, 100, interactive=lane == "interactive", permits=permits),
            0.9,
            0.01,
        )
        for burst, permits in ((5, 16), (20, 64))
        for retry_ms in (0, 1000)
        for lane in ("interactive", "batch")
    ),
    Scenario(
        "a 20/s, burst 5, 5,000 jobs there at once, batch",
        _bucket(5),
        Work(60, at_once=5000, interactive=False),
        0.88,
        0.04,
    ),
    Scenario("a 20/s, no burst at all", _bucket(1), Work(60, 100), 0.25, 0.02),
    Scenario("b 20/s, burst 5, without learning", _bucket(5), _UNLEARNED),
    Scenario("b the same with Retry-After 1 s", _bucket(5, 1000), _UNLEARNED),
    Scenario(
        "c 20/s -> 5/s after 60 s -> 20/s after 180 s",
        _changing((0, 20), (60_000, 5), (180_000, 20)),
        Work(360, 100),
        0.7,
        0.01,
        follows=((60, 5, 60), (180, 20, 120)),  # Down at once, or back up from too low a rate.
    ),
    Scenario("d 20 by the clock's minute", _window(20), _MINUTES, 0.7, 0.15, 60),
    Scenario("d with Retry-After", _window(20, says_when=True), _MINUTES, 0.95, 0.06, 60),
    Scenario("d requests_per_minute = 20", _window(20), _KNOWN, 0.97, 0, 60),
    Scenario("d 20 in any 60 s, the same", _window(20, sliding=True), _KNOWN, 0.97, 0, 60),
    Scenario("d 500 in any 60 s, unknown", _window(500, sliding=True), _BUSY, 0.8, 0.01, 60),
    Scenario("e 4 in flight, calls of 1 s", lambda: Places(4, 1000), _ONE_S, 0.75, 0.03),
    Scenario("e calls of 0.5 to 1.5 s", lambda: Places(4, 1000), _ABOUT_ONE_S, 0.55, 0.04),
    Scenario("f 30 in any 60 s, 10 s each", _window(30, sliding=True), _SLOW, 0.8, 0.08, 60),
    Scenario("f with Retry-After", _window(30, sliding=True, says_when=True), _SLOW, 0.9, 0.05, 60),
    Scenario("g 20/s, burst 5, idle but for 30 jobs a minute", _bucket(5), _BURSTS, refused=0.05),
    Scenario(
        "h 20/s, all refused from 100 s to 400 s",
        _changing((0, 20), (100_000, 0), (400_000, 20)),
        Work(700, 30),
        0.7,  # Up to a minute of backoff is left, and the rate has to grow again.
        0.01,
        from_s=400,
        follows=((400, 20, 90),),
    ),
    Scenario(
        "h 20 in any 60 s -> 5 -> 20, 15 minutes each",
        lambda: Window(_FEWER, sliding=True, says_when=True),
        Work(3600, 2, permits=16),
        0.8,
        0.1,
        from_s=60,
    ),
]

_HALVE = """
rates_learn = function(b)
  local span = math.max(1000, b.event_at - b.short_from)
  local rate = b.pace or 1000 * math.max(1, b.short_old + b.short_new) / span
  b.rate = math.max(RATES_LEAST, rate * (HALVE_ALWAYS and 0.5 or b.first and RATES_KEEP or 0.5))
end
"""
ALTERNATIVES = [
    SHIPPED,
    *(Rule(f"keep {keep}", {"RATES_KEEP": keep}) for keep in (0.8, 0.9, 0.97)),
    Rule("halve at each event", lua="\nlocal HALVE_ALWAYS = true" + _HALVE),
    Rule("0.93, then halve", lua="\nlocal HALVE_ALWAYS = false" + _HALVE),
    Rule("growth 2 %/s", {"RATES_GROWTH": 0.02}),
    Rule("no scaling of growth", {"RATES_BUSY": 0.001}),
    Rule("a guess grows no faster", {"RATES_SEEK": 0.005}),
    Rule("a guess grows 30 %/s", {"RATES_SEEK": 0.3}),
    Rule("never faster in calm", {"RATES_CALM_GROWTH": 0}),
    Rule("calm 10 %/s", {"RATES_CALM_GROWTH": 0.1}),
    Rule("calm after 60 s always", {"RATES_CALM_CALLS": 0}),
    Rule("calm after 100 calls", {"RATES_CALM_CALLS": 100}),
    *(Rule(f"slack {ms} ms", {"RATES_SLACK": ms}) for ms in (0, 30, 100, 250)),
]
_COMPARED = (0, 3, 6, 9, 12, 13, 14, 17, 19, 20, 22, 23, 24)


def check(scenario: Scenario) -> list[str]:
    """Print a scenario's line; returns the claims that do not hold."""
    runs = scenario.runs()
    shares = [run.share(scenario.from_s) for run in runs]
    refused = [run.refused() for run in runs]
    downs = [run.cool_downs for run in runs]
    print(
        f"{scenario.name:<52}{sum(shares) / len(runs):6.2f}{min(shares):6.2f}"
        f"{sum(refused) / len(runs):8.2%}{max(refused):8.2%}{sum(downs) / len(runs):7.1f}",
        flush=True,
    )
    broken = []
    if min(shares) < scenario.share:
        broken.append(f"share {min(shares):.3f}, claimed at least {scenario.share}")
    mean = sum(refused) / len(runs)
    if mean > scenario.refused or max(refused) > 1.5 * scenario.refused:
        broken.append(f"refused {mean:.4f}, {max(refused):.4f}; claimed {scenario.refused}")
    if lost := [run.lost() for run in runs if run.lost()]:
        broken.append(f"jobs lost: {lost}")
    for changed_s, per_second, within_s in scenario.follows:
        took = [run.followed_s(changed_s, per_second) for run in runs]
        print(f"    followed the change at {changed_s:.0f} s to {per_second:g}/s after s: {took}")
        if max(took) > within_s:
            broken.append(f"followed in {max(took):.0f} s, claimed {within_s:.0f} s")
    return [f"{scenario.name}: {claim}" for claim in broken]


def compare() -> None:
    """Print share / refused per cent of every alternative, for some of the scenarios."""
    scenarios = [SCENARIOS[place] for place in _COMPARED]
    for number, scenario in enumerate(scenarios, 1):
        print(f"  ({number}) {scenario.name}")
    print(
        f"{'share / refused %':<26}" + "".join(f"{f'({n + 1})':>10}" for n in range(len(scenarios)))
    )
    for rule in ALTERNATIVES:
        cells = []
        for scenario in scenarios:
            runs = scenario.runs(rule, SEEDS[:1])
            share = sum(run.share(scenario.from_s) for run in runs) / len(runs)
            refused = sum(run.refused() for run in runs) / len(runs)
            cells.append(f"{f'{share:.2f}/{100 * refused:.1f}':>10}")
        print(f"{rule.name:<26}" + "".join(cells), flush=True)


def main(arguments: Sequence[str]) -> int:
    """Check every scenario; 1 when a claim does not hold."""
    print(f"{'':<52}{'share':>6}{'worst':>6}{'refused':>8}{'worst':>8}{'cools':>7}")
    broken = [claim for scenario in SCENARIOS for claim in check(scenario)]
    for claim in broken:
        print(f"BROKEN {claim}")
    print(f"{len(broken)} claims broken" if broken else "every claim holds")
    if "--alternatives" in arguments:
        compare()
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
