"""What a run has come to: its figures in print, and the rules that they have to keep."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from bench.chaos.account import Account
from bench.chaos.check import Audit, left_over
from bench.chaos.ledger import Ledger
from bench.chaos.world import World
from bench.scenes.scene import Report

__all__ = ["Trial", "figures", "keep_logs", "rules"]

#: How many of what breaks a rule are printed.
_SHOWN = 5
#: Where the logs of a run go that broke a rule.
_LOGS = Path("var")


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one fault; ``first_s``, ``full_s`` and ``gap_s`` as in ``Recovery``.

    ``open`` are senders that were still waiting when they were told to give up; ``ended`` says
    whether every job and batch was over in time.
    """

    fault: str
    seed: int
    account: Account
    first_s: float | None
    full_s: float | None
    gap_s: float
    audits: list[Audit]
    acct: dict[str, int]
    logs: dict[str, Counter[str]]
    seconds: float
    open: int
    ended: bool
    broken: list[str] = field(default_factory=list)

    def to_wire(self) -> dict[str, Any]:
        """JSON-ready."""
        # Counters have to be plain first: `asdict` cannot make them again.
        account = {one.name: getattr(self.account, one.name) for one in fields(self.account)}
        rest = {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if one.name not in ("account", "audits")
        }
        return {**rest, "account": account, "audits": [asdict(audit) for audit in self.audits]}


def keep_logs(world: World, name: str) -> Path:
    """Copy the logs of all parts to where they stay; returns the folder."""
    folder = _LOGS / f"chaos-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    for log, path in world.logs().items():
        shutil.copyfile(path, folder / f"{log}.log")
    return folder


def figures(report: Report, trial: Trial) -> None:
    """Print what was counted."""
    account = trial.account
    for kind, told in sorted(account.told.items()):
        report.say(f"told to those who sent a {kind}", _shown(told))
    report.say("senders without any answer", trial.open)
    report.say(
        "jobs that were accepted; how they ended", f"{account.accepted}; {_shown(account.states)}"
    )
    report.say("answers and errors in records and results", _shown(account.codes))
    report.say("upstream calls; what became of them", f"{account.calls}; {_shown(account.became)}")
    report.say(
        "calls beyond one per job; the ledger's reasons",
        f"{account.extra}; {_shown(account.reasons)}",
    )
    report.say("attempts that the upstream never saw", account.unseen)
    report.say("errors told for jobs that have an answer", account.kept)
    report.say(
        "seconds to the first answer; to the full rate; without any",
        f"{_seconds(trial.first_s)}; {_seconds(trial.full_s)}; {trial.gap_s:.2f}",
    )
    report.say("audits: exit codes", _shown(Counter(str(found.code) for found in trial.audits)))
    report.say("counters", trial.acct)
    report.say("tracebacks and errors in logs", {k: dict(v) for k, v in trial.logs.items() if v})


def rules(
    report: Report, trial: Trial, world: World, ledger: Ledger, *, forgets: bool = False
) -> None:
    """Hold a run to the rules; ``forgets`` when nobody is left who knew what Redis has lost."""
    account, acct = trial.account, trial.acct
    report.rule("every sender has an answer or has given up", trial.open == 0)
    report.rule("every job and every batch ends in time", trial.ended)
    for name, found in (
        ("no job is lost", account.lost),
        ("no call of a job is unexplained", account.unexplained),
        ("nobody was told something else than the record of a job", account.contradictions),
        ("one job for each request", account.twins),
    ):
        if forgets:
            report.say(f"no rule here: {name}", f"{len(found)} against it")
        else:
            _rule(report, name, [str(one) for one in found])
    _rule(report, "no answer is wrong", [str(one) for one in account.wrong])
    _rule(report, "one result for each line", [str(one) for one in account.lines])
    states = ("queued", "waiting", "calling", "succeeded", "failed", "cancelled", "expired")
    total = sum(acct.get(state, 0) for state in (*states, "retired"))
    report.rule("the counters add up", acct.get("accepted", 0) == total)
    if not forgets:
        sent = sum(job.job_id.startswith("job_") for job in ledger.jobs.values())
        report.rule(
            f"as many jobs were found as were accepted ({sent})", sent == acct.get("accepted", 0)
        )
    _rule(
        report,
        "no audit finds a breach",
        [
            f"exit {found.code}: {found.broken} {found.breaches[:2]}"
            for found in trial.audits
            if found.code != 0 and not found.excused(world.away)
        ],
    )
    _rule(report, "nothing is left over", [f"{k}: {v}" for k, v in left_over(world).items()])
    _rule(report, "all parts are alive", world.dead())
    _rule(
        report,
        "no traceback in any log",
        [
            f"{name}: {count['traceback']}"
            for name, count in trial.logs.items()
            if count["traceback"]
        ],
    )
    report.rule("the full rate comes back", trial.full_s is not None)


def _rule(report: Report, name: str, found: list[str]) -> None:
    report.rule(f"{name} ({len(found)})" if found else name, holds=not found)
    for one in found[:_SHOWN]:
        report.say("  for one", one[:400])


def _shown(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f}"
