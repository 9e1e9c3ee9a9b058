"""Reading a whole dataset before anything of it is asked: what is wrong with it, and where."""

from __future__ import annotations

from collections.abc import Iterator

from chat.batches.batch import Fault
from chat.errors import ChatError, InvalidRequest
from chat.evaluations.calls import answer_body, trial_body
from chat.evaluations.dataset import Dataset, Sample, parse_sample
from chat.evaluations.scorers import check_expected
from chat.evaluations.suite import Judge, Suite
from chat.formats.chat import read_chat
from chat.formats.strict_json import shown
from chat.types import JSON

__all__ = ["MOST_FAULTS", "scan"]

#: Faults that are told; a dataset with more of them is read no further.
MOST_FAULTS = 100


def scan(
    dataset: Dataset,
    suite: Suite,
    *,
    faults: list[Fault],
    most_calls: int,
    longest_line: int,
    max_timeout_s: float,
) -> Iterator[None]:
    """Fill ``dataset`` and ``faults``; yields after each line, when something else may be done.

    A dataset is good when ``faults`` is empty at the end.
    """
    seen: set[str] = set()
    number, offset = 0, 0
    per_sample = len(suite.models) * suite.repeats
    with dataset.path.open("rb") as stream:
        while raw := stream.readline(longest_line + 1):
            number += 1
            begins, offset = offset, offset + len(raw)
            if len(raw) > longest_line:
                rule = f"the line is longer than {longest_line} bytes (body_limit)"
                faults.append(Fault("too_large", rule, number))
                return
            if raw.strip():
                try:
                    sample = parse_sample(number, raw)
                    _check(suite, sample, seen, max_timeout_s)
                except ChatError as error:
                    faults.append(Fault(error.code, error.message, number, error.param))
                else:
                    dataset.numbers.append(number)
                    dataset.offsets.append(begins)
            if len(faults) >= MOST_FAULTS:
                return
            if len(dataset) * per_sample > most_calls:
                faults.append(
                    Fault(
                        "too_many_calls",
                        f"more than {most_calls} answers are asked for (batch_max_lines): samples "
                        f"x {len(suite.models)} models x {suite.repeats} repeats; take a part of "
                        "the dataset",
                    )
                )
                return
            yield
    if not len(dataset) and not faults:
        faults.append(Fault("empty_file", "the dataset has no samples; write one to each line"))


def _check(suite: Suite, sample: Sample, seen: set[str], max_timeout_s: float) -> None:
    """That every question, score and verdict of a sample can be asked for."""
    if sample.id in seen:
        raise InvalidRequest(
            f"id {shown(sample.id)} stands in an earlier line too; make each one unique", param="id"
        )
    seen.add(sample.id)
    for candidate in suite.candidates:
        _check_body(answer_body(suite, candidate, sample), max_timeout_s)
    for place, scorer in enumerate(suite.scorers):
        if not isinstance(scorer, Judge):
            check_expected(scorer, sample.expected)
            continue
        try:
            _check_body(trial_body(scorer, [], "", sample), max_timeout_s)
        except InvalidRequest as error:
            where = f"scorers[{place}]"
            raise InvalidRequest(f"{where}: {error.message}", param=where) from error


def _check_body(body: JSON, max_timeout_s: float) -> None:
    read_chat(body, max_timeout_s=max_timeout_s)
