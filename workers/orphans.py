"""Answers that could not be handed to Redis in time, kept on disk until it takes them.

An answer has been paid for. When Redis stays away longer than a job's deadline and a minute, the
worker writes it to ``data_dir/orphans`` and hands it in at its next start.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from chat.jobs import Ending, JobState
from chat.types import Billed

if TYPE_CHECKING:
    from chat.store import JobStore

__all__ = ["Orphans"]

_log = logging.getLogger(__name__)


class Orphans:
    """The folder of endings that wait for Redis; one file each, written whole or not at all."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / "orphans"

    def keep(self, ending: Ending) -> Path:
        """Write an ending to disk and return its file. Raises ``OSError``."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._folder / f"{ending.job_id}.{ending.token}.json"
        draft = path.with_suffix(".draft")
        with draft.open("w", encoding="utf-8") as file:
            json.dump(asdict(ending), file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        return path

    def hand_in(
        self,
        store: JobStore,
        provider: str,
        remember: Callable[[Ending], object] = lambda _: None,
    ) -> int:
        """Finish the jobs of a provider whose answers lie here; returns how many were taken.

        ``remember`` is told of each before its file goes: Redis may forget it once more.

        Another worker of the provider may do the same at the same time. A file that cannot be
        read is reported and set aside. Raises ``QueueUnavailable``.
        """
        taken = 0
        for path in sorted(self._folder.glob("*.json")):
            ending = _read(path)
            if ending is not None and ending.provider == provider:
                finished = store.finish(ending)
                _log.info(
                    "orphan of job %s handed in: %s, %s",
                    ending.job_id,
                    finished.what,
                    finished.detail,
                    extra={"job_id": ending.job_id},
                )
                remember(ending)
                path.unlink(missing_ok=True)
                taken += 1
        return taken


def _read(path: Path) -> Ending | None:
    try:
        ending = Ending(**json.loads(path.read_text("utf-8")))
        # `finish` would stumble over these, at every try.
        JobState(ending.state)
        Billed(ending.billed)
        json.loads(ending.record)
    except FileNotFoundError:
        _log.debug("%s was handed in by another worker", path)
    except OSError as error:
        _log.warning("%s cannot be read just now: %s", path, error)
    except (TypeError, ValueError) as error:
        aside = path.with_suffix(".unreadable")
        _log.warning("%s cannot be read (%s); it is kept as %s", path, error, aside)
        with suppress(FileNotFoundError):  # Another worker was quicker.
            path.rename(aside)
    else:
        return ending
    return None
