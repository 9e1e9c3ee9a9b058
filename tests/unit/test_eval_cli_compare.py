"""``chatd eval compare``: which samples of two evaluations are compared, and what is told."""

from __future__ import annotations

import json

import pytest

from cli.eval_compare import Incomparable, Run, compare
from tests.eval_objects import ID, OTHER_ID, row, summary_of

JUDGED = (("numeric", "numeric"), ("polite", "judge"))

TOLD = f"""\
A  {ID}  sums  completed  30 samples x 1 model x 1 repeat
B  {OTHER_ID}  sums  completed  20 samples x 1 model x 1 repeat
20 common samples
note: 10 samples asked in one of them alone, left out

small
scorer      A     B  B - A   95 % interval  better  worse  same      p  samples
numeric  0.95  0.35  -0.60  -0.86 to -0.34       1     13     6  0.002       20
numeric worse: q2, q3, q4, q5, q6, q7, q8, q9, q10, q11 and 3 more
numeric better: q1
"""


def run(rows, *models, **options) -> Run:
    """An evaluation with these rows."""
    return Run(summary_of(rows, *models, **options), lambda: iter(rows))


def other(rows, *models, **options) -> Run:
    """The second one."""
    return run(rows, *models, id=OTHER_ID, **options)


def scored(count: int, *wrong: int, model: str = "small", **over):
    """Rows of so many samples; the ``wrong`` ones have a score of 0."""
    return [row(f"q{n}", float(n not in wrong), model, **over) for n in range(1, count + 1)]


def pair_of(comparison, place: int = 0):
    """What of a pair matters here."""
    pair = comparison.pairs[place]
    names = ("a", "b", "scorer", "samples", "mean_a", "mean_b", "worse", "better")
    return tuple(pair[name] for name in names)


class TestCompare:
    """What is compared with what."""

    def test_models_of_the_same_name_are_compared_sample_by_sample(self):
        """With the samples that changed; others are told."""
        a = run([*scored(10, 1), *scored(10, model="gone")], "small", "gone")
        b = other([*scored(10, 2, 3), *scored(10, model="new")], "small", "new")
        found = compare(a, b)

        assert [pair_of(found)] == [
            ("small", "small", "numeric", 10, 0.9, 0.8, ["q2", "q3"], ["q1"])
        ]
        assert found.notes == ['models of one of them alone, left out: "gone", "new"']

    def test_the_only_models_are_compared_whatever_their_names(self):
        """That is how a new model is held against an old one."""
        found = compare(run(scored(4, 1), "small"), other(scored(4, model="big"), "big"))

        assert pair_of(found)[:2] == ("small", "big")
        assert found.notes == []

    def test_samples_without_a_score_in_both_are_left_out(self):
        """An error is no wrong answer, on either side."""
        a = run([*scored(3, 1), row("q4", None)])
        b = other([row("q1", None), *scored(4)[1:]])

        assert pair_of(compare(a, b))[3:] == (2, 1.0, 1.0, [], [])

    def test_samples_of_one_of_them_alone_are_left_out_and_told(self):
        """As after --limit."""
        found = compare(run(scored(10)), other(scored(6, 1)))

        assert pair_of(found)[3:6] == (6, 1.0, 5 / 6)
        assert found.common == 6
        assert found.notes == ["4 samples asked in one of them alone, left out"]

    def test_a_sample_that_expects_something_else_is_another_one(self):
        """A dataset that was corrected is compared over the rest of it."""
        a = run(scored(5, 1))
        b = other([row("q1", 1.0, expected="43"), *scored(5)[1:]])
        found = compare(a, b)

        assert (found.common, pair_of(found)[3]) == (4, 4)
        assert found.notes == ["1 sample left out, of which the two expect something else"]

    def test_another_question_is_told(self):
        """It may be what was to be compared; a system message is a setting and no question."""
        system = {"role": "system", "content": "Be brief."}
        asked = [{"role": "user", "content": "How much is q2?"}]
        b = [
            row("q1", 1.0, messages=[system, *row("q1")["messages"]]),
            row("q2", 1.0, messages=asked),
        ]

        assert compare(run(scored(2)), other(b)).notes == [
            "the question is another one in 1 common sample"
        ]

    def test_another_question_to_both_models_is_told_as_well(self):
        """It does not cancel out."""
        asked = [{"role": "user", "content": "Else?"}]
        a = run([*scored(1), *scored(1, model="big")], "small", "big")
        b = [*scored(1, messages=asked), *scored(1, model="big", messages=asked)]

        assert compare(a, other(b, "small", "big")).notes == [
            "the question is another one in 1 common sample"
        ]

    def test_the_order_of_models_and_samples_is_no_difference(self):
        """Nor are the questions of models that are not compared."""
        asked = [{"role": "user", "content": "Else?"}]
        first, second = scored(3), scored(3, model="big")
        a = run([*first, *second], "small", "big")
        third = scored(3, model="x", messages=asked)
        b = other([*reversed(second), *first, *third], "big", "small", "x")

        assert compare(a, b).notes == ['models of one of them alone, left out: "x"']

    def test_a_scorer_with_other_settings_and_a_broken_off_run_are_told(self):
        """Both may be the whole of the difference."""
        a, b = run(scored(3)), other(scored(3), status="cancelled")
        b.summary["suite"]["scorers"][0]["tolerance"] = 1

        assert compare(a, b).notes == [
            f"{OTHER_ID} was cancelled before its end, so that a part of it is missing",
            'the scorer "numeric" has other settings in each, which may make the difference',
        ]

    def test_one_scorer_alone(self):
        """If that is what is asked for."""
        rows = [
            {**one, "scores": {**one["scores"], "polite": {"status": "scored", "score": 1.0}}}
            for one in scored(3)
        ]
        a, b = run(rows, scorers=JUDGED), other(rows, scorers=JUDGED)

        assert [pair["scorer"] for pair in compare(a, b).pairs] == ["numeric", "polite"]
        assert [pair["scorer"] for pair in compare(a, b, "polite").pairs] == ["polite"]

    @pytest.mark.parametrize(
        ("b", "scorer", "told"),
        [
            (
                other([row("x", 1.0)]),
                None,
                f"{ID} and {OTHER_ID} have no common samples: they asked other datasets",
            ),
            (
                other(scored(3, expected=1)),
                None,
                f"{ID} and {OTHER_ID} have 3 samples of the same ids, but expect something else",
            ),
            (
                other([row("q1", 1.0, "x"), row("q1", 1.0, "y")], "x", "y"),
                None,
                f'{ID} and {OTHER_ID} have no model in common: "small" and "x", "y"; give them',
            ),
            (
                other([row("q1", None)], scorers=(("right", "numeric"),)),
                None,
                f'{ID} and {OTHER_ID} have no scorer in common: "numeric" and "right"; give them',
            ),
            (
                other(scored(3)),
                "polite",
                'there is no scorer "polite" in both; they have "numeric" in common',
            ),
        ],
        ids=["no samples", "other dataset", "no model", "no scorer", "unknown scorer"],
    )
    def test_what_cannot_be_compared_is_told_with_the_reason(self, b, scorer, told):
        """And how it could have been."""
        with pytest.raises(Incomparable) as caught:
            compare(run(scored(3)), b, scorer)

        assert str(caught.value).startswith(told)

    @pytest.mark.parametrize(
        "b",
        [[*scored(1), row("q2", None)], [row("q1", None), row("q2", None)]],
        ids=["in other samples", "none at all"],
    )
    def test_a_model_without_a_score_in_both_is_unknown(self, b):
        """Nobody should take it for one that is no worse."""
        found = compare(run([row("q1", None), row("q2", 1.0)]), other(b))

        assert found.unknown == ["small/numeric"]
        assert found.notes == [
            'no sample has a score in both, so nothing is known: "small/numeric"'
        ]
        assert found.worse == []

    @pytest.mark.parametrize(
        ("wrong", "worse"),
        [((), False), ((1, 2), False), (range(1, 9), True)],
        ids=["none", "perhaps", "clearly"],
    )
    def test_it_is_worse_where_the_interval_lies_below_0(self, wrong, worse):
        """Two answers of twenty may be chance."""
        found = compare(run(scored(20)), other(scored(20, *wrong)))

        assert bool(found.worse) is worse
        assert not compare(other(scored(20, *wrong)), run(scored(20))).worse


class TestLines:
    """What people read."""

    def test_both_are_told_then_notes_then_the_figures_then_the_samples(self):
        """The first ten of them."""
        found = compare(run(scored(30, 1)), other(scored(20, *range(2, 15))))

        assert found.lines(columns=100) == TOLD.splitlines()

    def test_a_text_cannot_move_the_cursor(self):
        """Names, samples and notes are shown without what a terminal would obey."""
        first, second = row("\x1b[2J", 1.0, "\x1b[A"), row("\x1b[2J", 0.0, "\x1b[A", messages=[])
        b = other([second, row("x", 1.0, "\x1b[B")], "\x1b[A", "\x1b[B")
        found = compare(run([first], "\x1b[A"), b)

        assert all(line.isprintable() for line in found.lines(columns=100))

    def test_programs_get_every_figure(self):
        """As JSON."""
        wire = json.loads(json.dumps(compare(run(scored(4)), other(scored(4, 1))).to_wire()))

        assert (wire["a"]["id"], wire["b"]["id"], wire["common"]) == (ID, OTHER_ID, 4)
        assert wire["comparisons"][0]["difference"] == -0.25
        assert wire["comparisons"][0]["worse"] == ["q1"]
