"""A worker's name belongs to one living process of a host."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack

import pytest

from chat.errors import ConfigError
from workers import worker
from workers.worker import abandoned_names, claim_name

HOST = socket.gethostname()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """No test waits for a name."""
    monkeypatch.setattr(worker, "_CLAIM_WAIT_S", 0.0)


@pytest.fixture
def claim(tmp_path):
    """Claims names in one folder and gives them all up after the test."""
    with ExitStack() as held:

        def claim(provider="ollama", instance=None):
            name, lock = claim_name(tmp_path, provider, instance)
            held.callback(lock.close)
            return name, lock

        yield claim


def test_the_first_free_number_is_taken(claim):
    """Several workers of a provider need no coordination."""
    names = [claim()[0] for _ in range(3)]

    assert names == [f"ollama-{number}@{HOST}" for number in (1, 2, 3)]


def test_a_name_is_free_again_when_its_process_ends(claim):
    """So a restarted worker gets its old name, and with it the calls its earlier life lost."""
    _, first = claim()
    claim()
    first.close()

    assert claim()[0] == f"ollama-1@{HOST}"


def test_a_number_that_is_asked_for_is_taken_or_refused(claim):
    """Nobody else's name is handed out instead."""
    name, _ = claim(instance=7)

    assert name == f"ollama-7@{HOST}"
    with pytest.raises(ConfigError, match=r"ollama-7 is running already .* leave --instance out"):
        claim(instance=7)
    assert claim()[0] == f"ollama-1@{HOST}"


def test_providers_have_numbers_of_their_own(claim):
    """The first worker of each is number 1."""
    assert [claim(name)[0] for name in ("ollama", "kimi")] == [f"ollama-1@{HOST}", f"kimi-1@{HOST}"]


def test_the_file_says_who_has_the_name(claim, tmp_path):
    """Also after another process has tried to get it, and after an earlier life left its number."""
    lock = tmp_path / "workers" / "ollama-1.lock"
    lock.parent.mkdir()
    lock.write_text("4194304\n")
    claim()
    claim()

    assert lock.read_text() == f"{os.getpid()}\n"


def test_the_folder_is_private(claim, tmp_path):
    """Nobody else can hold a name."""
    claim()

    assert (tmp_path / "workers").stat().st_mode & 0o777 == 0o700


def test_names_whose_process_has_ended_are_abandoned(claim, tmp_path):
    """Whoever starts next gives up their calls, whatever number it has itself."""
    _, first = claim()
    claim()
    _, third = claim(instance=12)
    claim("ollama_cloud")[1].close()
    first.close()
    third.close()

    assert list(abandoned_names(tmp_path, "ollama")) == [f"ollama-{n}@{HOST}" for n in (1, 12)]


def test_a_name_is_nobody_elses_while_its_calls_are_given_up(claim, tmp_path):
    """Otherwise a worker could begin one under that name in between; it takes the next number."""
    claim()[1].close()
    taken = [(name, claim()[0]) for name in abandoned_names(tmp_path, "ollama")]

    assert taken == [(f"ollama-1@{HOST}", f"ollama-2@{HOST}")]
