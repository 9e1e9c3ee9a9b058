"""Looking for garbage less often."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from chat.garbage import search_less


class _Node:
    def __init__(self) -> None:
        self.other: _Node | None = None


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def test_what_is_there_is_not_searched_again() -> None:
    search_less()
    assert gc.get_freeze_count() > 1000
    assert gc.get_threshold()[0] > 10_000


def test_cycles_made_later_are_still_found() -> None:
    search_less()
    found = gc.get_count()[0]
    for _ in range(30_000):
        one, other = _Node(), _Node()
        one.other, other.other = other, one
    # Without a search all of them would still be there.
    assert gc.get_count()[0] - found < 60_000
    assert sum(type(each) is _Node for each in gc.get_objects()) < 60_000
