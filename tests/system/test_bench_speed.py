"""The load generator of the speed tables on chatd itself."""

from __future__ import annotations

import pytest

from bench.speed.generator import Load, run
from tests.stack import Stack


@pytest.fixture
def stack(tmp_path, upstream):
    # The answer to the question that ends in 7 is another one's.
    upstream.reply = lambda _, body: (
        (200, {"message": {"content": "echo: somebody else"}, "done": True})
        if body["messages"][-1]["content"].endswith("7")
        else None
    )
    stack = Stack(tmp_path / "stack", {"ollama": upstream.url}).start()
    yield stack
    stack.stop()


@pytest.mark.parametrize("form", ["chat", "completion"])
def test_a_wrong_answer_among_right_ones_is_found(stack, form):
    """Twenty chats with two wrong answers, and chatd's own account of them."""
    counts = run(Load(url=stack.url, form=form, connections=4, count=20)).counts

    assert (counts.asked, counts.right, counts.wrong, counts.failed) == (20, 18, 2, 2)
    assert stack.balanced()["succeeded"] == 20


def test_jobs_are_accepted_with_their_own_questions(stack):
    """Each of them is in the queue, or has been."""
    counts = run(Load(url=stack.url, form="job", connections=4, count=20)).counts

    assert (counts.asked, counts.right) == (20, 20)
    assert stack.balanced()["accepted"] == 20
