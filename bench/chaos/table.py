"""What all faults came to: a table, a summary over seeds, and the raw figures as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.chaos.verdict import Trial
from bench.scenes.scene import Report

__all__ = ["print_summary", "print_table", "save"]

_HEAD = (
    "fault",
    "accepted",
    "succ/fail/canc/exp",
    "lost",
    "calls",
    "extra",
    "reasons",
    "unexpl.",
    "first s",
    "full s",
    "rules",
)
_STATES = ("succeeded", "failed", "cancelled", "expired")


def print_table(report: Report, trials: Sequence[Trial], not_run: Mapping[str, str]) -> None:
    """A row for each fault."""
    report.table(_HEAD, [_row(trial) for trial in trials])
    for name, why in not_run.items():
        report.say(f"{name} was not run", why)


def print_summary(report: Report, trials: Sequence[Trial]) -> None:
    """All seeds together: sums of the counts, the worst of the times."""
    rows = []
    for name in dict.fromkeys(trial.fault for trial in trials):
        own = [trial for trial in trials if trial.fault == name]
        rows.append(
            (
                name,
                len(own),
                sum(trial.account.accepted for trial in own),
                sum(len(trial.account.lost) for trial in own),
                sum(trial.account.calls for trial in own),
                sum(trial.account.extra for trial in own),
                sum(len(trial.account.unexplained) for trial in own),
                _worst([trial.first_s for trial in own]),
                _worst([trial.full_s for trial in own]),
                sum(len(trial.broken) for trial in own),
            )
        )
    head = ("fault", "runs", "accepted", "lost", "calls", "extra", "unexpl.")
    report.table((*head, "worst first s", "worst full s", "broken"), rows)


def save(trials: Sequence[Trial], not_run: Mapping[str, str], path: Path) -> None:
    """Everything that was counted, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    value = {"trials": [trial.to_wire() for trial in trials], "not_run": dict(not_run)}
    path.write_text(json.dumps(value, indent=1), "utf-8")


def _row(trial: Trial) -> tuple[object, ...]:
    account = trial.account
    reasons = ", ".join(f"{count} {name}" for name, count in sorted(account.reasons.items()))
    return (
        trial.fault,
        account.accepted,
        "/".join(str(account.states[state]) for state in _STATES),
        len(account.lost),
        account.calls,
        account.extra,
        reasons or "-",
        len(account.unexplained),
        _worst([trial.first_s]),
        _worst([trial.full_s]),
        f"{len(trial.broken)} broken" if trial.broken else "hold",
    )


def _worst(seconds: Sequence[float | None]) -> str:
    known = [value for value in seconds if value is not None]
    return f"{max(known):.2f}" if len(known) == len(seconds) else "never"
