"""Job ids: they sort by time, and say when they were made."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.jobs import made_at, new_id, new_job_id

MOMENTS = st.integers(0, 2**48 - 1)
CHANCE = st.binary(min_size=10, max_size=10)


@given(MOMENTS, CHANCE)
def test_an_id_says_when_it_was_made(moment: int, chance: bytes) -> None:
    """To the millisecond, whatever else is in it."""
    assert made_at(new_id("job_", moment, chance)) == moment


@given(MOMENTS, MOMENTS, CHANCE, CHANCE)
def test_ids_sort_by_time(one: int, other: int, chance: bytes, more: bytes) -> None:
    """As text, so that Redis can keep them in order."""
    ids = [new_id("job_", one, chance), new_id("job_", other, more)]

    assert one == other or (ids[0] < ids[1]) == (one < other)


def test_a_new_id_is_of_now() -> None:
    """By the wall clock of this process."""
    before = time.time_ns() // 1_000_000
    made = made_at(new_job_id())

    assert made is not None
    assert before <= made <= time.time_ns() // 1_000_000


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("job_", id="prefix"),
        pytest.param("file_" + "0" * 26, id="other-prefix"),
        pytest.param("job_" + "0" * 25, id="short"),
        pytest.param("job_" + "0" * 27, id="long"),
        pytest.param("job_" + "0" * 25 + "l", id="other-letter"),
        pytest.param("job_" + "0" * 25 + "A", id="upper-case"),
        pytest.param("job_" + "0" * 26 + "\n", id="new-line"),
        pytest.param("job_" + "٣" * 26, id="other-digits"),
    ],
)
def test_what_is_no_id_has_no_time(text: str) -> None:
    """Nothing else may be asked of Redis either."""
    assert made_at(text) is None
