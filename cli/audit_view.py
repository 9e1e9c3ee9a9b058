"""How ``chatd audit`` looks: columns for people, and the verdict in the last line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from chat.audit_report import NOTES, REMAINS, RULES, AuditReport
from chat.jobs import JobState, rfc3339
from cli.overview import plain

__all__ = ["lines"]

#: What is counted since the beginning, and what it means.
_SINCE_EVER = {
    "reclaimed": "calls given up since their worker was gone",
    "permits_overrun": "of these calls, how many went on all the same",
    "republished": "wake-ups that were lost and sent again",
    "recalled": "calls that Redis had forgotten and their workers told it again",
    "recreated": "of these, how many jobs it had forgotten altogether",
}

#: From this age on (s) the first job of a queue may have lost its wake-up, as the keeper has it.
_SLOW_S = 30


def lines(report: AuditReport) -> Iterator[str]:
    """The report as text. What comes from records has no control characters left."""
    for line in (*_books(report), *_notes(report), *_maybe(report), *_breaches(report)):
        yield plain(line)
    yield report.verdict


def _books(report: AuditReport) -> Iterator[str]:
    rows = [("", "counted", "records met")]
    rows += [
        (state.value, str(report.counters.get(state, 0)), str(report.records[state]))
        for state in JobState
    ]
    rows += [(name, str(report.counters.get(name, 0)), "") for name in ("retired", "accepted")]
    yield from _columns(rows, right=(1, 2))
    yield ""
    yield from _columns(
        [
            *((name, str(report.counters.get(name, 0)), why) for name, why in _SINCE_EVER.items()),
            ("lost calls", str(report.lost_calls), "in the ledgers of the records that are kept"),
            ("billed maybe", str(report.maybe_count), "attempts in the same ledgers"),
            ("orphans", str(len(report.orphans)), "answers on disk that Redis has not taken"),
        ],
        right=(1,),
    )
    yield ""


def _notes(report: AuditReport) -> Iterator[str]:
    slow = [queue for queue in report.queues if queue.oldest_s >= _SLOW_S]
    notes = [
        f"{queue.name}: of {queue.queued} queued, {queue.passed} were passed by later ones; the "
        "keeper sends their wake-ups again, unless a worker has them in its hand"
        for queue in slow
        if queue.passed
    ]
    notes += [
        f"{queue.name}: {queue.queued} queued, and no wake-up in its list; the keeper sends them "
        "again, unless a worker has them in its hand"
        for queue in slow
        if not queue.wake_ups and not queue.passed
    ]
    notes += [f"{count} {rule}: {NOTES[rule]}" for rule, count in sorted(report.noted.items())]
    notes += [f"orphan {orphan.name}, {orphan.age_s:.0f} s old" for orphan in report.orphans]
    # What no audit can see: what Redis may lose of what it has confirmed.
    notes.append(f"durability {report.durability}: {REMAINS[report.durability]}")
    yield from (f"note  {note}" for note in notes)
    yield ""


def _maybe(report: AuditReport) -> Iterator[str]:
    if not report.maybe:
        return
    yield f"Billed maybe, {len(report.maybe)} of {report.maybe_count}:"
    rows = [("job", "attempt", "outcome", "worker", "started")]
    rows += [
        (
            attempt.job_id,
            str(attempt.number),
            attempt.outcome or "-",
            attempt.worker or "-",
            rfc3339(attempt.started_at),
        )
        for attempt in report.maybe
    ]
    yield from _columns(rows, right=(1,))
    yield ""


def _breaches(report: AuditReport) -> Iterator[str]:
    for breach in report.breaches:
        suspect = breach.suspect
        subject = suspect.job_id or f"{suspect.key} {suspect.member}".rstrip()
        found = f" ({breach.found})" if breach.found else ""
        yield f"breach  {suspect.rule}  {subject}: {RULES[suspect.rule]}{found}"
        if suspect.job_id:
            yield f"        in {suspect.key}, state {suspect.state or 'none'}"
            yield from (f"        {event}" for event in breach.events)
            if not breach.events:
                yield "        the audit stream has nothing of it any more"
    if sum(report.broken.values()) > len(report.breaches):
        told = ", ".join(f"{rule} {count}" for rule, count in sorted(report.broken.items()))
        yield f"Of all breaches: {told}; --limit names more"
    if report.breaches:
        yield ""


def _columns(rows: Sequence[Sequence[str]], *, right: Sequence[int]) -> Iterator[str]:
    """Rows with aligned columns; numbers, the columns of ``right``, stand at its right edge."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
