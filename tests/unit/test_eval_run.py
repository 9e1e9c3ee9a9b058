"""One evaluation from its dataset to its report: ``chat.evaluations.run``, models are functions."""

from __future__ import annotations

import json

import pytest

from chat.batches.batch import Status
from chat.evaluations.calls import Trial
from chat.jobs import NewJob
from tests.evaluations import Refused, Stage, a_suite, question_of, samples_of, verdict

JUDGE = {"type": "judge", "model": "wise", "rubric": "Is it {{expected}}?"}


def number_in(job: NewJob) -> str:
    """The right answer."""
    return question_of(job).split()[-1].rstrip("?")


def is_judge(job: NewJob) -> bool:
    return job.request.model == "wise"


@pytest.fixture
def staged(tmp_path):
    stages = []

    def make(answer=number_in):
        stages.append(Stage(tmp_path, answer))
        return stages[-1]

    yield make
    for stage in stages:
        stage.stop()


class TestAnswers:
    """Questions that need no judge."""

    def test_every_sample_is_asked_of_every_model_as_often_as_said(self, staged):
        stage = staged()
        suite = a_suite(models=["small", {"model": "small", "name": "hot"}], repeats=2, cache=False)
        evaluation = stage.create(suite, samples_of(3))
        progress = stage.until_over(evaluation)

        assert progress.status is Status.COMPLETED
        rows = stage.rows(evaluation)
        assert [(row["model"], row["sample"], row["repeat"]) for row in rows] == [
            (model, f"q{sample}", repeat)
            for model in ("small", "hot")
            for sample in (1, 2, 3)
            for repeat in (1, 2)
        ]
        assert len(stage.asked) == 12
        assert {row["scores"]["numeric"]["score"] for row in rows} == {1.0}

    def test_settings_of_a_model_go_before_those_of_the_suite(self, staged):
        stage = staged()
        hot = {"model": "small", "name": "hot", "system": "", "parameters": {"temperature": 1}}
        suite = a_suite(
            models=["small", hot],
            system="You count.",
            prompt="{{prompt}} Sample {{id}}: {{word}} {{expected}}",
            parameters={"temperature": 0, "max_tokens": 9},
        )
        stage.until_over(stage.create(suite, [{**samples_of(1)[0], "vars": {"word": "is it"}}]))

        asked = [job.request for job in stage.asked]
        assert [[m.content for m in request.messages] for request in asked] == [
            ["You count.", "What is 1? Sample q1: is it 1"],
            ["What is 1? Sample q1: is it 1"],
        ]
        assert [(request.temperature, request.max_tokens) for request in asked] == [(0, 9), (1, 9)]

    def test_an_error_is_no_wrong_answer(self, staged):
        def answer(job):
            if question_of(job) == "What is 2?":
                raise Refused("upstream_rejected")
            return "1"

        stage = staged(answer)
        evaluation = stage.create(a_suite(), samples_of(3))
        stage.until_over(evaluation)

        model = stage.shown(evaluation)["models"][0]
        assert (model["answered"], model["errors"]) == (2, {"upstream_rejected": 1})
        (score,) = model["scores"]
        assert (score["mean"], score["scored"], score["samples"]) == (0.5, 2, 2)
        row = stage.rows(evaluation)[1]
        assert (row["status"], row["scores"]) == ("errored", {})
        assert row["error"]["code"] == "upstream_rejected"

    def test_what_it_cost_is_added_up(self, staged):
        stage = staged()
        evaluation = stage.create(a_suite(), samples_of(3))
        stage.until_over(evaluation)
        assert stage.shown(evaluation)["usage"] == {
            "input_tokens": 30,
            "output_tokens": 6,
            "cost_usd": 1.5,
        }

    def test_every_report_is_there(self, staged):
        stage = staged()
        evaluation = stage.create(a_suite(), samples_of(2))
        stage.until_over(evaluation)
        folder = stage.store.folder(evaluation)
        assert b"<html" in (folder / "report.html").read_bytes()
        assert len((folder / "results.csv").read_text().splitlines()) == 3
        assert (folder / "junit.xml").read_text().count("<testcase") == 2
        assert json.loads((folder / "summary.json").read_text())["totals"]["rows"] == 2
        assert not list(folder.glob("calls-*"))


class TestJudges:
    """Verdicts are asked for as answers come in."""

    def test_a_verdict_is_asked_for_while_others_are_still_asked(self, staged):
        stage = staged(lambda job: verdict("pass") if is_judge(job) else "x")
        evaluation = stage.create(a_suite(scorers=[JUDGE]), samples_of(2))
        while len(stage.jobs.open) < 2:
            stage.step(answer=False)
        stage.answer_one(stage.jobs.open[0])
        stage.step(3, answer=False)

        assert [is_judge(stage.jobs.admitted[job_id]) for job_id in stage.jobs.open] == [
            False,
            True,
        ]
        stage.until_over(evaluation)
        assert [row["scores"]["judge"]["score"] for row in stage.rows(evaluation)] == [1.0, 1.0]

    def test_a_judge_is_told_the_question_the_answer_and_the_rubric(self, staged):
        stage = staged(lambda job: verdict("fail") if is_judge(job) else "forty")
        evaluation = stage.create(a_suite(scorers=[JUDGE]), samples_of(1))
        stage.until_over(evaluation)

        (job,) = filter(is_judge, stage.asked)
        text = "\n".join(message.content for message in job.request.messages)
        assert all(part in text for part in ("What is 1?", "forty", "Is it 1?"))
        assert (job.request.temperature, job.request.max_tokens) == (0, 256)
        assert isinstance(job.request.format, dict)
        (row,) = stage.rows(evaluation)
        assert row["scores"]["judge"]["score"] == 0.0
        assert row["scores"]["judge"]["judge"]["tries"] == 1

    @pytest.mark.parametrize(
        ("second", "status", "mean"),
        [(verdict("pass"), "scored", 1.0), ("No.", "unparsable", None)],
    )
    def test_a_reply_without_a_verdict_is_repaired_once(self, staged, second, status, mean):
        replies = ["I think it is fine", second]
        stage = staged(lambda job: replies.pop(0) if is_judge(job) else "x")
        evaluation = stage.create(a_suite(scorers=[JUDGE]), samples_of(1))
        stage.until_over(evaluation)

        first, again = filter(is_judge, stage.asked)
        assert "I think it is fine" in [message.content for message in again.request.messages]
        assert (first.request.format is None, again.request.format) == (False, None)
        (row,) = stage.rows(evaluation)
        assert row["scores"]["judge"]["status"] == status
        assert row["scores"]["judge"]["judge"]["tries"] == 2
        shown = stage.shown(evaluation)
        assert shown["models"][0]["scores"][0]["mean"] == mean
        assert shown["verdicts"][status] == 1

    def test_a_judge_that_does_not_write_json_is_asked_without_it(self, staged):
        """Providers that ignore ``format`` end the call with an error that has no text."""

        def answer(job):
            if is_judge(job) and job.request.format is not None:
                raise Refused("upstream_protocol")
            return verdict("pass")

        stage = staged(answer)
        evaluation = stage.create(a_suite(scorers=[JUDGE]), samples_of(1))
        stage.until_over(evaluation)
        assert stage.rows(evaluation)[0]["scores"]["judge"]["score"] == 1.0

    def test_a_judge_that_fails_leaves_the_answer_in_other_scores(self, staged):
        def answer(job):
            if is_judge(job):
                raise Refused("upstream_auth")
            return number_in(job)

        stage = staged(answer)
        evaluation = stage.create(a_suite(scorers=[{"type": "numeric"}, JUDGE]), samples_of(2))
        stage.until_over(evaluation)
        numeric, judged = stage.shown(evaluation)["models"][0]["scores"]
        assert (numeric["mean"], judged["mean"], judged["errored"]) == (1.0, None, 2)
        assert stage.rows(evaluation)[0]["scores"]["judge"]["code"] == "upstream_auth"


class TestCache:
    """Answers at temperature 0 are known the second time."""

    def test_the_second_evaluation_asks_nothing(self, staged):
        stage = staged(lambda job: verdict("pass") if is_judge(job) else number_in(job))
        suite = a_suite(scorers=[{"type": "numeric"}, JUDGE])
        stage.until_over(stage.create(suite, samples_of(3)))
        asked = len(stage.asked)
        second = stage.create(suite, samples_of(4))
        stage.until_over(second)

        assert (asked, len(stage.asked)) == (6, 8)
        shown = stage.shown(second)
        assert (shown["counts"]["cached"], shown["usage"]["cost_usd"]) == (3, 1.0)
        assert [row["cached"] for row in stage.rows(second)] == [True, True, True, False]
        assert stage.rows(second)[0]["latency_ms"] is None

    @pytest.mark.parametrize(
        "changes",
        [
            {"cache": False},
            {"parameters": {"temperature": 0.1}},
            {"parameters": {}},
            {"models": ["kimi/a"]},
        ],
        ids=["switched off", "chance", "unknown temperature", "a provider that drops it"],
    )
    def test_what_is_not_kept(self, staged, changes):
        stage = staged()
        for _ in range(2):
            stage.until_over(stage.create(a_suite(**changes), samples_of(2)))
        assert len(stage.asked) == 4
        assert stage.store.cache.kept().answers == 0

    def test_each_repeat_has_an_answer_of_its_own(self, staged):
        stage = staged()
        stage.until_over(stage.create(a_suite(repeats=3), samples_of(1)))
        assert len(stage.asked) == 3

    def test_errors_and_unreadable_verdicts_are_never_kept(self, staged):
        def answer(job):
            if is_judge(job):
                return "?"
            if question_of(job) == "What is 2?":
                raise Refused("upstream_rejected")
            return "1"

        stage = staged(answer)
        stage.until_over(stage.create(a_suite(scorers=[JUDGE]), samples_of(2)))
        assert stage.store.cache.kept().answers == 1

    def test_a_cache_that_cannot_be_used_is_done_without(self, staged, caplog):
        stage = staged()
        (stage.root / "evaluations").mkdir()
        (stage.root / "evaluations" / "cache.db").write_text("this is no database" * 100)
        evaluation = stage.create(a_suite(), samples_of(2))
        assert stage.until_over(evaluation).status is Status.COMPLETED
        assert "without the cache" in caplog.text


class TestRetry:
    """Only what failed is asked again."""

    def test_answers_and_verdicts_that_failed(self, staged):
        broken = {"What is 2?"}
        judge_broken = [True]

        def answer(job):
            if is_judge(job):
                if judge_broken[0]:
                    raise Refused("upstream_unavailable")
                return verdict("pass")
            if question_of(job) in broken:
                raise Refused("upstream_unavailable")
            return number_in(job)

        stage = staged(answer)
        suite = a_suite(scorers=[{"type": "numeric"}, JUDGE], cache=False)
        evaluation = stage.create(suite, samples_of(3))
        first = stage.until_over(evaluation)
        assert (first.errored, len(stage.asked)) == (3, 5)

        broken.clear()
        judge_broken[0] = False
        stage.store.retry(evaluation)
        assert stage.progress(evaluation).status is Status.IN_PROGRESS
        second = stage.until_over(evaluation)

        assert [question_of(job) for job in stage.asked[5:] if not is_judge(job)] == ["What is 2?"]
        assert len(stage.asked) == 9  # One answer, three verdicts.
        assert second.errored == 0
        shown = stage.shown(evaluation)
        assert (shown["round"], len(shown["batch_ids"]), shown["status"]) == (2, 2, "completed")
        rows = stage.rows(evaluation)
        assert [row["round"] for row in rows] == [1, 2, 1]
        assert len(rows[1]["attempts"]) == 2
        assert [row["scores"]["judge"]["score"] for row in rows] == [1.0, 1.0, 1.0]

    def test_what_was_cancelled_is_asked_when_it_is_wanted_again(self, staged):
        stage = staged()
        evaluation = stage.create(a_suite(), samples_of(3))
        while not stage.jobs.open:
            stage.step(answer=False)
        stage.store.cancel(evaluation)
        stage.step(4, answer=False)
        assert stage.until_over(evaluation).status is Status.CANCELLED
        assert {row["error"]["code"] for row in stage.rows(evaluation)} == {"batch_cancelled"}
        stage.store.retry(evaluation)
        assert stage.until_over(evaluation).status is Status.COMPLETED
        assert stage.shown(evaluation)["counts"]["answered"] == 3

    def test_a_cancel_that_comes_after_it_is_for_the_new_round(self, staged):
        stage = staged()
        evaluation = stage.create(a_suite(), samples_of(3))
        while not stage.jobs.open:
            stage.step(answer=False)
        stage.store.cancel(evaluation)
        stage.step(6, answer=False)
        assert stage.progress(evaluation).status is Status.CANCELLED
        stage.store.retry(evaluation)
        stage.store.cancel(evaluation)
        assert stage.progress(evaluation).status is Status.CANCELLING
        stage.step(8, answer=False)
        assert stage.progress(evaluation).status is Status.CANCELLED
        assert len(stage.progress(evaluation).rounds) == 2
        assert not stage.asked


class TestEnds:
    """Whatever ends it, every row is there."""

    def test_a_bad_dataset_fails_before_anything_is_asked(self, staged):
        stage = staged()
        samples = [samples_of(1)[0], {"id": "q1", "prompt": "x", "expected": 1}, "{", {"id": "z"}]
        evaluation = stage.create(a_suite(), samples)
        progress = stage.until_over(evaluation)
        assert progress.status is Status.FAILED
        assert [(fault.line, fault.param) for fault in progress.faults] == [
            (2, "id"),
            (3, None),
            (4, "prompt"),
        ]
        assert not stage.asked
        assert stage.shown(evaluation)["errors"]["data"][0]["line"] == 2

    def test_a_model_without_provider_fails_it(self, staged):
        stage = staged()
        judge = {**JUDGE, "model": "openrouter/a/b"}
        evaluation = stage.create(a_suite(scorers=[judge]), samples_of(1))
        progress = stage.until_over(evaluation)
        assert progress.status is Status.FAILED
        assert [(fault.code, fault.param) for fault in progress.faults] == [
            ("provider_not_registered", "scorers[0]")
        ]

    def test_too_many_calls_are_refused(self, staged):
        stage = staged()
        evaluation = stage.create(a_suite(repeats=100), samples_of(501))
        progress = stage.until_over(evaluation)
        assert [fault.code for fault in progress.faults] == ["too_many_calls"]

    def test_a_window_that_ends_leaves_what_was_answered(self, staged):
        stage = staged()
        evaluation = stage.create(a_suite(), samples_of(2), window_s=60)
        while not stage.jobs.open:
            stage.step(answer=False)
        stage.answer_one(stage.jobs.open[0])
        stage.step(2, answer=False)
        stage.wall += 100
        assert stage.until_over(evaluation).status is Status.EXPIRED
        assert [row["status"] for row in stage.rows(evaluation)] == ["answered", "errored"]

    def test_cancelling_its_batch_cancels_it(self, staged):
        stage = staged()
        evaluation = stage.create(a_suite(), samples_of(2))
        while not stage.jobs.open:
            stage.step(answer=False)
        stage.batch_store.cancel(stage.progress(evaluation).rounds[0].id)
        assert stage.until_over(evaluation).status is Status.CANCELLED

    def test_it_can_be_cancelled_before_it_began(self, staged):
        stage = staged()
        evaluation = stage.create(a_suite(), samples_of(2))
        stage.store.cancel(evaluation)
        assert stage.until_over(evaluation).status is Status.CANCELLED
        assert not stage.asked


@pytest.mark.parametrize("deaths", range(1, 14))
def test_it_may_die_at_any_step(staged, deaths):
    """Each answer and each verdict is asked for once, and the figures are the same."""

    def answer(job):
        if is_judge(job):
            return verdict("pass") if job.request.format is None else "hm"
        return number_in(job)

    stage = staged(answer)
    suite = a_suite(scorers=[{"type": "numeric"}, JUDGE], cache=False)
    evaluation = stage.create(suite, samples_of(3))
    for _ in range(deaths):
        stage.step()
        stage.killed()
    assert stage.until_over(evaluation).status is Status.COMPLETED
    assert len(stage.asked) == 9
    assert [
        (row["scores"]["numeric"]["score"], row["scores"]["judge"]["score"])
        for row in stage.rows(evaluation)
    ] == [(1.0, 1.0)] * 3


def test_a_result_that_was_cut_off_is_read_again(staged):
    stage = staged(lambda job: verdict("pass") if is_judge(job) else "x")
    evaluation = stage.create(a_suite(scorers=[JUDGE], cache=False), samples_of(3))
    while len(stage.asked) < 3:
        stage.step()
    stage.step(answer=False)
    stage.stop()
    path = stage.store.folder(evaluation) / "log.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    stage.start()
    assert stage.until_over(evaluation).status is Status.COMPLETED
    assert {row["scores"]["judge"]["score"] for row in stage.rows(evaluation)} == {1.0}


def test_a_call_that_was_cut_off_is_asked_for_again(staged):
    stage = staged()
    evaluation = stage.create(a_suite(), samples_of(3))
    while not stage.jobs.open:
        stage.step(answer=False)
    stage.stop()
    with (stage.store.folder(evaluation) / "calls-1.jsonl").open("a") as file:
        file.write('{"custom_id": "m1-s')
    stage.start()
    assert stage.until_over(evaluation).status is Status.COMPLETED
    assert len(stage.asked) == 3


def test_names_of_calls_are_read_back():
    trial = Trial.named("m2-s17-r1-j3-t2")
    assert trial is not None
    assert (trial.task.model, trial.task.sample, trial.task.repeat) == (1, 16, 1)
    assert (trial.scorer, trial.attempt, str(trial)) == (2, 2, "m2-s17-r1-j3-t2")
    assert Trial.named("m2-s17-r1") is None
