"""What one evaluation knows: its log on disk, and in memory what follows from it."""

from __future__ import annotations

from chat.evaluations.calls import Task, Trial, answer_body, repair_body, trial_body
from chat.evaluations.dataset import Dataset
from chat.evaluations.judge import read_verdict
from chat.evaluations.log import Log
from chat.evaluations.scorers import Score, score
from chat.evaluations.state import State
from chat.evaluations.suite import Judge, Suite
from chat.types import JSON

__all__ = ["Record"]

#: What a judge's call ends with that was asked for JSON and wrote something else.
_NOT_JSON = "upstream_protocol"


class Record:
    """Takes in what came of each call, scores it, and says what a further call has to ask."""

    def __init__(self, suite: Suite, dataset: Dataset, log: Log) -> None:
        self.suite, self.dataset, self.log = suite, dataset, log
        self.state = State(suite)

    def recall(self) -> None:
        """Read what was taken in before, by whoever had the evaluation."""
        for offset, entry in self.log.recall():
            self._note(entry, offset)

    def enter(self, entry: JSON) -> None:
        """Take in one entry; it is on disk after the log's next ``sync``."""
        self._note(entry, self.log.append(entry))

    def body(self, call: Task | Trial) -> JSON:
        """The body of ``POST /v1/chat`` that makes a call."""
        task = call if isinstance(call, Task) else call.task
        sample = self.dataset.sample(task.sample)
        asked = answer_body(self.suite, self.suite.candidates[task.model], sample)
        if isinstance(call, Task):
            return asked
        known, judge = self.state.known(task), self._judge(call)
        assert known is not None  # noqa: S101 - a verdict is wanted on an answer only
        answer = self.log.read(known.offsets[-1])["answer"]["content"]
        first = trial_body(judge, asked["messages"], answer or "", sample)
        if call.attempt == 1:
            return first
        reply = self.log.read(known.verdicts[call.scorer].offsets[-1])["answer"]
        return repair_body(judge, first, reply and reply["content"])

    def ended(self, name: str, number: int) -> bool:
        """Whether a call of round ``number`` has its entry."""
        trial = Trial.named(name)
        known = self.state.known(Task.named(name) if trial is None else trial.task)
        if known is None:
            return False
        if trial is None:
            return known.round == number
        verdict = known.verdicts.get(trial.scorer)
        if verdict is None or verdict.round < number:
            return False
        return trial.attempt == 1 or verdict.score is not None

    def worth_keeping(self, entry: JSON) -> bool:
        """Whether the cache may have it: errors help nobody, nor does a reply without a verdict."""
        if entry["answer"] is None:
            return False
        trial = Trial.named(entry["call"])
        return trial is None or self._read(trial, entry) is not None

    def close(self) -> None:
        """Let go of the files."""
        self.dataset.close()
        self.log.close()

    def _note(self, entry: JSON, offset: int) -> None:
        trial = Trial.named(entry["call"])
        if trial is None:
            task = Task.named(entry["call"])
            self.state.answered(task, entry, offset, self._scores(task, entry))
        else:
            self.state.judged(trial, entry, offset, self._verdict(trial, entry))

    def _scores(self, task: Task, entry: JSON) -> dict[int, Score]:
        """What the scorers say that need no model."""
        if entry["answer"] is None:
            return {}
        expected = self.dataset.sample(task.sample).expected
        return {
            place: score(scorer, entry["answer"]["content"] or "", expected)
            for place, scorer in enumerate(self.suite.scorers)
            if not isinstance(scorer, Judge)
        }

    def _verdict(self, trial: Trial, entry: JSON) -> Score | None:
        """The score that a try has led to; ``None`` if it is to be repeated."""
        error = entry["error"]
        if error is not None and error["code"] != _NOT_JSON:
            return Score("errored", None, error["message"], error["code"])
        found = None if error is not None else self._read(trial, entry)
        if found is not None:
            return found
        if trial.attempt == 1:
            return None
        return Score(
            "unparsable", None, "neither this reply nor the one before has a verdict", None
        )

    def _read(self, trial: Trial, entry: JSON) -> Score | None:
        verdict = read_verdict(self._judge(trial), entry["answer"]["content"] or "")
        return None if verdict is None else Score("scored", verdict[1], verdict[2], None)

    def _judge(self, trial: Trial) -> Judge:
        judge = self.suite.scorers[trial.scorer]
        assert isinstance(judge, Judge)  # noqa: S101 - calls are named by chatd itself
        return judge
