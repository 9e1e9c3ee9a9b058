"""Looking for garbage less often; in processes of their own, since it is for good."""

from __future__ import annotations

import subprocess
import sys

_STARTED = """
import flask, gc
from chat.garbage import search_less
search_less()
"""
_CYCLES = """
class Node: pass
for _ in range(100_000):
    one, other = Node(), Node()
    one.other, other.other = other, one
print(sum(type(each) is Node for each in gc.get_objects()))
"""


def _printed(code: str) -> int:
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return int(ended.stdout)


def test_what_is_there_is_not_searched_again() -> None:
    assert _printed(_STARTED + "print(gc.get_freeze_count())") > 10_000


def test_cycles_made_later_are_still_found() -> None:
    # Without a search 200,000 would still be there.
    assert _printed(_STARTED + _CYCLES) < 50_000
