"""An evaluation without Redis and HTTP: a job store in memory, and models that are functions."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from chat.batches.folder import BatchStore
from chat.evaluations.evaluation import Evaluation, Progress
from chat.evaluations.folder import EvaluationStore
from chat.evaluations.suite import read_suite
from chat.jobs import NewJob, new_id
from chat.settings import ChatdConfig
from chat.types import JSON
from tests.batches import CREATED_MS, FakeJobs
from tests.fakes import FakeClock, registered_names
from workers.runs import Runner, batches, evaluations

__all__ = ["Refused", "Stage", "a_suite", "question_of", "samples_of", "verdict"]


def samples_of(count: int) -> list[JSON]:
    """Samples q1 to q<count>; ``expected`` is the number in the question."""
    return [
        {"id": f"q{number}", "prompt": f"What is {number}?", "expected": number}
        for number in range(1, count + 1)
    ]


def a_suite(**changes: Any) -> JSON:
    """A suite of one model and one scorer, with changes."""
    return {
        "name": "numbers",
        "models": ["small"],
        "parameters": {"temperature": 0},
        "scorers": [{"type": "numeric"}],
        **changes,
    }


def verdict(word: str) -> str:
    """A judge's reply."""
    return json.dumps({"verdict": word, "reason": "so"})


class Stage:
    """A data_dir with evaluations, the keepers that run them one after the other, and models.

    ``answer`` has the answer to each job, or the code of its error in an exception.
    """

    def __init__(self, root: Path, answer: Callable[[NewJob], str]) -> None:
        self.root = root
        self.answer = answer
        self.jobs, self.clock = FakeJobs(), FakeClock()
        self.wall = CREATED_MS / 1000
        self.config = ChatdConfig(data_dir=root)
        self.store = EvaluationStore(root / "evaluations")
        self.batch_store = BatchStore(root / "batches")
        self.names = registered_names("ollama", "kimi")
        self.asked: list[NewJob] = []
        self.runners: list[Runner] = []
        self.start()

    def start(self) -> None:
        """Another keeper."""
        clocks: Mapping[str, Callable[[], float]] = {"clock": self.clock, "wall": lambda: self.wall}
        self.runners = [
            batches(self.config, self.jobs, self.names, **clocks),
            evaluations(self.config, self.names, **clocks),
        ]

    def killed(self) -> None:
        """The keeper dies without a word, and another one takes over."""
        self.stop()
        self.start()

    def stop(self) -> None:
        """The keeper lets go of its files."""
        stop = threading.Event()
        stop.set()
        for runner in self.runners:
            runner.run(stop)

    def create(self, suite: JSON, samples: Iterable[JSON | str], window_s: int = 86400) -> str:
        """An evaluation; its id."""
        dataset = self.root / "dataset.jsonl"
        dataset.unlink(missing_ok=True)
        dataset.write_text(
            "".join(
                (sample if isinstance(sample, str) else json.dumps(sample)) + "\n"
                for sample in samples
            )
        )
        evaluation = Evaluation(
            id=new_id("eval_"),
            input_file_id=new_id("file-"),
            suite=read_suite(suite),
            window_s=window_s,
            created_ms=CREATED_MS,
        )
        self.store.create(evaluation, dataset)
        return evaluation.id

    def step(self, times: int = 1, *, answer: bool = True) -> None:
        """Let the keeper work, and the models answer."""
        for _ in range(times):
            self.clock.advance(1)
            for runner in self.runners:
                runner.round()
            if answer:
                for job_id in self.jobs.open:
                    self.answer_one(job_id)

    def answer_one(self, job_id: str) -> None:
        """Answer a job."""
        job = self.jobs.admitted[job_id]
        self.asked.append(job)
        try:
            self.jobs.succeed(job_id, self.answer(job), cost_usd=0.5)
        except Refused as refused:
            self.jobs.fail(job_id, str(refused))

    def until_over(self, evaluation_id: str) -> Progress:
        """Go on until the evaluation is over."""
        for _ in range(500):
            if self.progress(evaluation_id).status.terminal:
                return self.progress(evaluation_id)
            self.step()
        raise AssertionError("the evaluation does not end")

    def progress(self, evaluation_id: str) -> Progress:
        """How far it is."""
        return self.store.get(evaluation_id)[1]

    def shown(self, evaluation_id: str) -> JSON:
        """As HTTP shows it."""
        evaluation, progress = self.store.get(evaluation_id)
        return evaluation.shown(progress)

    def rows(self, evaluation_id: str) -> list[JSON]:
        """Its results."""
        text = (self.store.folder(evaluation_id) / "results.jsonl").read_text("utf-8")
        return [json.loads(line) for line in text.splitlines()]


class Refused(Exception):
    """A model that fails with an error of this code."""


def question_of(job: NewJob) -> str:
    """What a job asks last."""
    return job.request.messages[-1].content
