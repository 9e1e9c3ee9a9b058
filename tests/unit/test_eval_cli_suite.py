"""What ``chatd eval`` makes of files and options before it sends anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.eval_suite import Changes, Limits, SuiteFault, ready

SUITE = """\
name = "sums"
dataset = "data/sums.jsonl"
models = ["small", {model = "small", name = "hot", parameters = {temperature = 1}}]
[[scorers]]
type = "numeric"
[[scorers]]
type = "judge"
model = "wise"
rubric = "pass if it is right"
"""
SAMPLES = [{"id": f"q{number}", "prompt": "?", "expected": number} for number in range(1, 6)]


@pytest.fixture
def suite(tmp_path):
    """A suite beside a folder with its dataset."""
    (tmp_path / "data").mkdir()
    written(tmp_path / "data" / "sums.jsonl", *SAMPLES)
    path = tmp_path / "suite.toml"
    path.write_text(SUITE, "utf-8")
    return path


def written(path: Path, *samples) -> Path:
    """A dataset of these samples, or texts as they stand."""
    lines = (one if isinstance(one, str) else json.dumps(one) for one in samples)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


def read(path: Path, limits: Limits | None = None, **changes):
    """What is to be sent."""
    with ready(path, Changes(**changes), limits or Limits()) as found:
        return found


def fault(path: Path, limits: Limits | None = None, **changes) -> str:
    """What is wrong, without the folder of the test."""
    with pytest.raises(SuiteFault) as caught:
        read(path, limits, **changes)
    return str(caught.value).replace(f"{path.parent}/", "")


class TestReady:
    """A suite that can be used."""

    def test_it_is_sent_as_it_was_written(self, suite):
        """With the dataset that lies beside it, however the command was called."""
        found = read(suite)

        assert [candidate.label for candidate in found.suite.candidates] == ["small", "hot"]
        assert found.wire["models"][1]["parameters"] == {"temperature": 1}
        assert found.dataset == suite.parent / "data" / "sums.jsonl"
        assert (found.samples, found.answers) == (5, 10)

    def test_options_stand_in_place_of_the_file(self, suite, tmp_path):
        """And leave alone what they do not name."""
        other = written(tmp_path / "other.jsonl", SAMPLES[0])
        found = read(suite, name="again", cache=False, dataset=other)

        assert (found.wire["name"], found.wire["cache"]) == ("again", False)
        assert (found.dataset, found.samples) == (other, 1)
        assert len(found.suite.scorers) == 2

    def test_a_model_that_the_suite_names_keeps_its_settings(self, suite):
        """By its name there; any other is a model without settings of its own."""
        found = read(suite, models=("hot", "kimi/x"))

        assert found.wire["models"] == [
            {"model": "small", "name": "hot", "parameters": {"temperature": 1}},
            "kimi/x",
        ]

    def test_the_first_samples_alone_are_checked_and_sent(self, suite):
        """Under the dataset's name, empty lines included; what follows may be wrong."""
        data = written(suite.parent / "data" / "sums.jsonl", *SAMPLES[:2], "", SAMPLES[2], "not")
        with ready(suite, Changes(limit=3), Limits()) as found:
            sent = found.dataset.read_text("utf-8")

        assert found.samples == 3
        assert found.dataset.name == "sums.jsonl"
        assert sent == data.read_text("utf-8").removesuffix("not\n")
        assert not found.dataset.exists()


class TestFaults:
    """What cannot be used, by its place."""

    def test_every_line_that_is_wrong_is_told(self, suite):
        """As compilers tell it, with the numbers of the file's own lines."""
        written(
            suite.parent / "data" / "sums.jsonl",
            *("", SAMPLES[0], SAMPLES[0]),
            *({"id": "x", "prompt": "?"}, "{", {"id": "y", "promt": "?"}),
        )
        lines = fault(suite).splitlines()

        assert [line.partition(": ")[0] for line in lines] == [
            f"data/sums.jsonl:{number}" for number in (3, 4, 5, 6)
        ]
        assert "stands in an earlier line" in lines[0]
        assert 'the scorer "numeric" (numeric) needs a number' in lines[1]
        assert '"prompt"' in lines[3]

    def test_a_hundred_faults_are_not_all(self, suite):
        """It says that the rest was not looked at."""
        written(suite.parent / "data" / "sums.jsonl", *["{"] * 150)

        assert fault(suite).splitlines()[-1] == "there may be more: it was read no further"

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("name =\n", "suite.toml:1: is not TOML: Invalid value"),
            ('name = "x"\nx = 1979-05-27\n', "suite.toml: 1979-05-27 is a date or a time"),
            ('name = "x"\nx = inf\n', "suite.toml: x: Infinity is not JSON"),
            (SUITE.replace("numeric", "number"), "suite.toml: scorers[0].type"),
            (SUITE.replace('dataset = "data/sums.jsonl"', ""), "suite.toml: dataset is missing"),
            (
                SUITE.replace("sums.jsonl", "none"),
                'suite.toml: dataset is "data/none", but data/none is',
            ),
            (SUITE.replace("dataset = ", "datset = "), "suite.toml: datset is not a known field"),
            (SUITE.replace('name = "sums"', ""), "suite.toml: name is missing"),
        ],
        ids=["no TOML", "date", "infinity", "scorer", "no dataset", "no file", "typo", "no name"],
    )
    def test_a_fault_of_the_suite_is_told_by_its_place(self, suite, text, told):
        """With the rule and the way out."""
        suite.write_text(text, "utf-8")

        assert fault(suite).startswith(told)

    def test_a_suite_that_is_no_text_is_told(self, suite):
        """By its first byte that is none."""
        suite.write_bytes(b'name = "\xff"')

        assert fault(suite) == ("suite.toml: is not UTF-8: byte 0xff at offset 8; save it as UTF-8")

    def test_what_chatd_would_not_take_is_told_as_far_as_it_is_known(self, suite):
        """The most answers of one evaluation, and the longest line."""
        assert "more than 9 answers are asked for" in fault(suite, Limits(calls=9))
        assert fault(suite, Limits(line=20)).startswith("data/sums.jsonl:1: the line is longer")
