"""The files by which a `chatd up` is found, and what they say of one that is gone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from chat.errors import ConfigError
from cli import instance
from cli.instance import Instance, Restarts, restarts_of, running_pid


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for a lock."""
    monkeypatch.setattr(instance, "_LOCK_WAIT_S", 0.0)


def test_who_runs_is_known_by_its_process_id(tmp_path: Path) -> None:
    """As long as it runs; the file is its user's own."""
    before = running_pid(tmp_path / "data")
    running = Instance(tmp_path / "data")
    found = running_pid(tmp_path / "data")
    mode = stat.S_IMODE((tmp_path / "data" / "up.pid").stat().st_mode)
    running.close()

    assert (before, found, running_pid(tmp_path / "data")) == (None, os.getpid(), None)
    assert mode == 0o600


def test_a_file_that_a_killed_one_left_behind_names_nobody(tmp_path: Path) -> None:
    """Its number may be that of any other process by now."""
    (tmp_path / "up.pid").write_text("1\n", "ascii")

    assert running_pid(tmp_path) is None


def test_one_that_is_starting_is_not_there_yet(tmp_path: Path) -> None:
    """It has the lock and has not written its number."""
    running = Instance(tmp_path)
    (tmp_path / "up.pid").write_text("", "ascii")

    assert running_pid(tmp_path) is None
    running.close()


def test_two_do_not_share_a_folder(tmp_path: Path) -> None:
    """The second one is told so, and the first one's number stays."""
    running = Instance(tmp_path)
    with pytest.raises(ConfigError, match="another `chatd up` runs in"):
        Instance(tmp_path)

    assert running_pid(tmp_path) == os.getpid()
    running.close()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """With the way out."""
    (tmp_path / "file").write_text("", "ascii")
    with pytest.raises(ConfigError, match=r"set \[chatd\] data_dir to another folder"):
        Instance(tmp_path / "file" / "data")


def test_its_restarts_are_counted_from_its_start(tmp_path: Path) -> None:
    """Those of an earlier life are nobody's business."""
    first = Instance(tmp_path)
    first.tell(Restarts(begun=3, ended=2, doing="api starts anew"))
    told = restarts_of(tmp_path)
    first.close()
    second = Instance(tmp_path)

    assert told == Restarts(3, 2, "api starts anew", "")
    assert restarts_of(tmp_path) == Restarts()
    second.close()
