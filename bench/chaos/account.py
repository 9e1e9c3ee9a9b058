"""The account of a run: what was accepted, what became of it, and what the upstream was asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from bench.chaos.batch import Batch
from bench.chaos.ledger import Job, Ledger
from bench.chaos.load import ACCEPTED, ANSWERED, WRONG, Asked
from bench.upstream import Seen
from chat.jobs import JobState

__all__ = ["Account", "Finding", "accounted"]

#: An error with the id of a job of which nobody knows whether it was accepted.
_UNSURE = frozenset({"redis_unavailable"})


class Finding(NamedTuple):
    """Something that must not be: about which question, and what is wrong."""

    question: str
    what: str

    def __str__(self) -> str:
        return f"{self.question}: {self.what}"


@dataclass(slots=True)
class Account:
    """The figures, and by name whatever must not be.

    ``told`` counts by kind what senders were told last. ``accepted`` counts jobs by what was told
    and what was found, ``states`` how they ended. ``calls`` are those that came to the upstream,
    ``became`` what became of them there, ``extra`` those beyond one per job, ``reasons`` what the
    ledger says of these. ``unexplained`` are calls that no ledger has, ``unseen`` attempts that
    never came to the upstream. ``kept`` are jobs whose sender got an error although there is an
    answer.
    """

    told: dict[str, Counter[str]] = field(default_factory=dict)
    accepted: int = 0
    states: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    became: Counter[str] = field(default_factory=Counter)
    extra: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    unseen: int = 0
    kept: int = 0
    lost: list[Finding] = field(default_factory=list)
    unexplained: list[Finding] = field(default_factory=list)
    wrong: list[Finding] = field(default_factory=list)
    contradictions: list[Finding] = field(default_factory=list)
    twins: list[Finding] = field(default_factory=list)
    lines: list[Finding] = field(default_factory=list)


def accounted(
    asked: list[Asked],
    batches: list[Batch],
    ledger: Ledger,
    calls: list[Seen],
) -> Account:
    """The account of all that was asked."""
    account = Account()
    jobs = ledger.by_question()
    _senders(account, asked, ledger)
    for one in asked:
        _held_to(account, one, ledger)
    for batch in batches:
        _lines(account, batch, jobs)
    for job in ledger.jobs.values():
        account.states[job.state.value] += 1
        account.codes[job.code or "answered"] += 1
        if not job.state.terminal:
            account.lost.append(Finding(job.question, f"{job.job_id} is {job.state} at the end"))
        if not job.right:
            account.wrong.append(Finding(job.question, f"the record answers {job.content}"))
    _upstream(account, calls, jobs)
    return account


def _senders(account: Account, asked: list[Asked], ledger: Ledger) -> None:
    accepted = set(ledger.jobs)
    for one in asked:
        account.told.setdefault(one.kind.value, Counter())[one.said] += 1
        if _acknowledged(one):
            accepted.add(one.job_id or "")
        if one.said == WRONG:
            account.wrong.append(Finding(one.question, "its sender got another answer"))
    account.accepted = len(accepted)


def _acknowledged(one: Asked) -> bool:
    """Whether its sender knows for certain that there is a job."""
    return one.job_id is not None and one.said not in _UNSURE


def _held_to(account: Account, one: Asked, ledger: Ledger) -> None:
    """Whether what a sender was told is what the record says."""
    if not _acknowledged(one):
        return
    job = ledger.jobs.get(one.job_id or "")
    if job is None:
        told = f"told {one.said} for {one.job_id}, and there is no record"
        account.lost.append(Finding(one.question, told))
        return
    if one.said == ACCEPTED and one.final is not None:
        state, content = one.final
        if (state, content) != (job.state.value, job.content):
            told = f"read {state}, {content}; now {job.state}, {job.content}"
            account.contradictions.append(Finding(one.question, told))
    elif one.said == ANSWERED and (job.state is not JobState.SUCCEEDED or not job.right):
        told = f"answered, and the record is {job.state}"
        account.contradictions.append(Finding(one.question, told))
    elif one.said not in (ANSWERED, WRONG, ACCEPTED) and job.state is JobState.SUCCEEDED:
        account.kept += 1


def _lines(account: Account, batch: Batch, jobs: Mapping[str, list[Job]]) -> None:
    """Each line of a batch has one result, under its own number."""
    if batch.batch_id is None:
        return
    found = Counter(result["chatd"]["line"] for result in batch.results)
    for number, question in enumerate(batch.questions, 1):
        if not found[number]:
            told = f"no result ({batch.batch_id} is {batch.status})"
            account.lost.append(Finding(question, told))
        elif found[number] > 1:
            account.lines.append(Finding(question, f"{found[number]} results"))
        elif not any(job.line == number for job in jobs.get(question, ())):
            account.lines.append(Finding(question, "its result stands under another line"))


def _upstream(
    account: Account,
    calls: list[Seen],
    jobs: Mapping[str, list[Job]],
) -> None:
    """Hold the calls of each question against the attempts of its jobs."""
    called = Counter(seen.question for seen in calls)
    account.calls = called.total()
    account.became = Counter(seen.became or "open" for seen in calls)
    for question in {**called, **jobs}:
        own = jobs.get(question, [])
        attempts = sum(len(job.outcomes) for job in own)
        extra = called[question] - max(1, len(own))
        if len(own) > 1:
            account.twins.append(Finding(question, ", ".join(job.job_id for job in own)))
        if extra > 0:
            account.extra += extra
            reasons = sum((job.beside_its_end for job in own), Counter[str]())
            account.reasons.update(list(reasons.elements())[:extra])
        account.unseen += max(0, attempts - called[question])
        if called[question] > attempts:
            told = f"{called[question]} calls, the ledger has {[job.outcomes for job in own]}"
            account.unexplained.append(Finding(question, told))
