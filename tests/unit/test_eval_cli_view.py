"""How far an evaluation is, and what ``chatd eval`` says about it."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from rich.console import Console

from chat.evaluations.folder import FORMATS
from cli.eval import evaluations
from cli.eval_ending import report_name
from cli.eval_object import Evaluation
from cli.eval_progress import Meter, Progress
from cli.eval_reports import FORMATS as OFFERED
from cli.eval_view import counts, detached, ended, hint, listed, parts, screen, standing
from cli.main import main
from cli.watching import Lines
from tests.eval_objects import ID, evaluation, evaluation_object, model
from tests.evaluations import Refused, Stage, a_suite, question_of, samples_of, verdict
from tests.pages import page, table

AT = datetime(2026, 11, 22, 17, 40, 0, 123456, tzinfo=UTC)
MEANS = {"numeric": 0.834, "polite": 0.7}
#: Half way, with everything that may be told.
BUSY = evaluation(
    "in_progress",
    model(
        *("small", 12, {"rate_limited": 1, "upstream_timeout": 2}),
        means=MEANS,
        judged=(8, 2, 1),
        cost_usd=0.0123,
    ),
    model("big", 0, means=dict.fromkeys(MEANS), judged=(0, 0, 0)),
    usage={"input_tokens": 700, "output_tokens": 30, "cost_usd": 0.0123},
)


def measured(*seen: tuple[float, Evaluation]) -> Progress:
    """The progress after these seconds."""
    meter = Meter()
    *earlier, (at, last) = seen
    for then, one in earlier:
        meter.measure(one, then)
    return meter.measure(last, at)


def told(progress: Progress) -> list[str]:
    return [line for _, line in parts(progress, at=AT)]


def drawn(progress: Progress, trouble: str = "", *, width: int = 100) -> list[str]:
    """The view as a terminal of that width shows it."""
    console = Console(width=width, file=io.StringIO(), color_system=None)
    with console.capture() as capture:
        console.print(screen(progress, trouble))
    return [shown.rstrip() for shown in capture.get().splitlines()]


class TestObject:
    """What the server's own object says."""

    @pytest.fixture
    def staged(self, tmp_path):
        """Makes a keeper, which lets go of its files at the end."""
        stages = []

        def make(answer):
            stages.append(Stage(tmp_path, answer))
            return stages[-1]

        yield make
        for stage in stages:
            stage.stop()

    def test_it_is_read_as_the_server_writes_it(self, staged):
        """Before, on the way, and at the end, when one answer has failed and one verdict."""

        def answer(job):
            if job.request.model != "wise":
                if question_of(job) == "What is 3?":
                    raise Refused("upstream_rejected")
                return "1"
            return "Well." if "What is 2?" in str(job.request.messages) else verdict("pass")

        judge = {"type": "judge", "name": "polite", "model": "wise", "rubric": "Is it?"}
        stage = staged(answer)
        made = stage.create(a_suite(scorers=[{"type": "numeric"}, judge]), samples_of(3))
        before = Evaluation.from_wire(stage.shown(made))
        stage.step(3, answer=False)
        begun = Evaluation.from_wire(stage.shown(made))
        stage.until_over(made)
        over = Evaluation.from_wire(stage.shown(made))

        assert (before.status, before.models, before.reported) == ("validating", (), False)
        assert (begun.status, begun.total, begun.done, begun.left) == ("in_progress", 3, 0, 6)
        assert (over.status, over.over, over.reported, over.left) == ("completed", True, True, 0)
        assert (over.answered, over.errored, over.unjudged) == (2, 1, 1)
        (small,) = over.models
        assert small.errors == (("upstream_rejected", 1),)
        assert [(one.scorer, one.mean, one.scored) for one in small.scores] == [
            ("numeric", 0.5, 2),
            ("polite", 1.0, 1),
        ]
        # The job costs half a dollar, whoever it asks: two answers, and three tries of the judge.
        assert small.cost_usd == over.cost_usd == 2.5

    def test_verdicts_are_expected_of_what_may_be_answered(self):
        """A question without an answer has none."""
        small, big = BUSY.models

        assert (small.asked, small.verdicts, small.judged, small.left) == (15, 17, 11, 11)
        assert (big.verdicts, big.left) == (20, 40)
        assert (BUSY.unjudged, BUSY.left) == (3, 51)


class TestMeter:
    """Rates, of all and of each model."""

    def test_answers_and_verdicts_are_what_goes_on(self):
        """A model that has not begun has no rate and no time left."""
        start = evaluation("in_progress", model("small", 0, judged=(0, 0, 0)), model("big", 0))
        later = evaluation("in_progress", model("small", 6, judged=(4, 0, 0)), model("big", 0))
        progress = measured((0.0, start), (4.0, later))

        assert progress.by_model["small"].per_s == progress.pace.per_s == 10 / 4
        assert progress.by_model["big"] == (0.0, 0.0, None)
        assert progress.pace.left_s == later.left / 2.5

    @pytest.mark.parametrize("status", ["validating", "cancelling", "cancelled", "expired"])
    def test_what_is_given_up_has_no_rate(self, status):
        """Thousands fail at a time without a call."""
        more = [model(name, 0, {"batch_cancelled": 20}) for name in ("small", "big")]
        progress = measured((0.0, BUSY), (1.0, evaluation(status, *more)))

        assert progress.pace == (None, None, None)


class TestLines:
    """What a pipe gets."""

    def test_the_whole_and_each_model_have_a_line(self):
        """With all that is known by then."""
        earlier = evaluation("in_progress", model("small", 2, means=MEANS), model("big", 0))

        whole, small, big = told(measured((0.0, earlier), (12.0, BUSY)))

        assert whole == (
            "2026-11-22T17:40:00Z in_progress 33%, 12/40 answered, 3 errored, 2.0/s, "
            "2.0/s overall, about 26s left, $0.0123, 700 + 30 tokens"
        )
        assert small == (
            "2026-11-22T17:40:00Z   small: 12/20 answered, 3 errored, "
            "11/17 (2 unparsable, 1 errored) verdicts, numeric 0.83, polite 0.70, 2.0/s, "
            "about 6s left, $0.0123; errors: upstream_timeout 2, rate_limited 1"
        )
        assert big == ("2026-11-22T17:40:00Z   big: 0/20 answered, 0 errored, 0/20 verdicts, 0.0/s")

    def test_of_one_model_alone_the_whole_has_no_numbers_of_its_own(self):
        """They would be told twice."""
        one = evaluation("in_progress", model(), round=2)

        assert told(measured((0.0, one))) == [
            "2026-11-22T17:40:00Z in_progress (round 2) 100%, 20/20 answered",
            "2026-11-22T17:40:00Z   small: 20/20 answered, 0 errored, numeric 0.85",
        ]

    def test_a_model_that_stands_still_is_not_told_again(self, capsys):
        """A log of an evaluation of hours should not grow with every look."""
        lines, meter = Lines(parts), Meter()
        for at in range(0, 20, 2):
            seen = evaluation("in_progress", model("small", 20), model("big", at))
            lines.show(meter.measure(seen, float(at)), float(at))
        printed = capsys.readouterr().out.splitlines()
        names = [line.split()[1].rstrip(":") for line in printed]

        assert names == ["in_progress", "small", "big", *["in_progress", "big"] * 3]


class TestScreen:
    """What a terminal gets."""

    def test_a_bar_for_all_and_a_row_for_each_model(self):
        """And trouble below."""
        shown = drawn(measured((0.0, BUSY)), "gone, waiting")

        assert shown[0] == f"sums  {ID}  in_progress"
        assert shown[1].endswith("  33%, 12/40 answered")
        assert shown[2:] == [
            "$0.0123, 700 + 30 tokens",
            "",
            "model  answered  errored  verdicts  scores so far              rate  left     cost",
            "small     12/20        3     11/17  numeric 0.83, polite 0.70              $0.0123",
            "big        0/20        0      0/20",
            "gone, waiting",
        ]

    def test_a_narrow_terminal_and_long_names_cut_no_figure(self):
        """Names give way."""
        seen = evaluation("in_progress", model("m" * 100, 12, means={"s" * 60: 0.5}))

        assert any("12/20" in line and "0" in line for line in drawn(measured((0, seen)), width=80))

    def test_before_its_dataset_is_read_there_is_only_a_title(self):
        """Nothing to count yet."""
        assert drawn(measured((0.0, evaluation("validating")))) == [f"sums  {ID}  validating"]


class TestEnded:
    """What is said at the end, and to who looks once."""

    def test_what_failed_can_be_asked_again(self):
        """With the way to do it."""
        over = evaluation(
            "completed", model("small", 18, {"rate_limited": 2}, means=MEANS, judged=(17, 1, 0))
        )

        told = "18 of 20 questions answered, 2 errored, 1 verdict missing"

        assert ended(over, "http://x:1") == [
            f"{ID} completed after 12m 03s: {told}",
            f"  what failed is asked again by `chatd eval retry {ID} --url http://x:1`",
        ]
        assert ended(evaluation("completed", model())) == [
            f"{ID} completed after 12m 03s: 20 of 20 questions answered, 0 errored"
        ]

    def test_a_dataset_that_is_not_taken_is_told_by_its_lines(self):
        """There is nothing to ask again."""
        fault = {"code": "invalid_request", "line": 7, "message": "expected is null, but …"}
        failed = evaluation("failed", errors={"object": "list", "data": [fault]})

        assert ended(failed) == [
            f"{ID} failed: 1 fault in its dataset, nothing was asked",
            "  line 7: expected is null, but … (invalid_request)",
        ]

    def test_counts_before_and_without_any(self):
        """Neither is "0 of 0"."""
        assert counts(evaluation("validating")) == "its questions are not counted yet"
        assert counts(evaluation("cancelled", samples=0)) == "nothing was asked"

    def test_who_looks_once_sees_each_model(self):
        """Without rates, which would take two looks."""
        assert standing(BUSY)[0] == f"{ID}  sums  in_progress: {counts(BUSY)}"
        assert standing(BUSY)[2] == "  big: 0/20 answered, 0 errored, 0/20 verdicts"

    def test_a_line_of_a_list(self):
        """When, which, how far, and what it is called."""
        assert listed(BUSY) == (
            f"2026-11-18T11:06:40Z  {ID}  in_progress  12/40 answered, 3 errored  sums"
        )

    def test_who_leaves_is_told_the_way_back(self):
        """And how to stop it."""
        assert detached("x", "http://y:1") == (
            "Detached; x goes on. `chatd eval watch x --url http://y:1` comes back to it, "
            "`chatd eval cancel x --url http://y:1` stops it."
        )

    def test_no_text_can_move_the_cursor(self):
        """Whatever calls itself chatd."""
        wire = evaluation_object(
            "\x1b[2J", model("a\nb", 1, {"\x1b": 2}, means={"\r": 1.0}), id="\x1b", name="\x1b]0;"
        )
        seen = Evaluation.from_wire(wire)
        progress = measured((0.0, seen))
        lines = [*told(progress), *drawn(progress, "\x1b"), *ended(seen), *standing(seen)]

        assert all(line.isprintable() for line in [*lines, listed(seen), hint("watch", seen.id)])


def test_the_page_tells_every_command_and_exit_code():
    """As the help has them."""
    text, told = page("README.md"), CliRunner().invoke(main, ["eval", "--help"]).output
    named = re.findall(r"chatd\s+eval\s+([a-z]+)", text)
    codes = [row[0] for row in table(text, "Exit code of `chatd eval`", "Meaning")]

    assert set(named) == set(evaluations.commands)
    assert codes == re.findall(r"^    ([0-9]+) ", told, re.MULTILINE)


def test_every_report_is_offered_and_its_file_named_by_what_it_is():
    """In this folder, whatever the evaluation is called."""
    assert {kind: FORMATS[kind].rpartition(".")[2] for kind in FORMATS} == {
        kind: suffix.removeprefix(".") for kind, suffix in OFFERED.items()
    }
    assert report_name(ID, "capitals").name == f"capitals-{ID}.html"
    assert report_name(ID, "../a b/ü: x", ".csv").name == f"a-b-ü-x-{ID}.csv"
    assert report_name("../..", "--", ".csv").parent.name == ""
