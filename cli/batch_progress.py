"""How fast a batch goes, and how long it will take; see ``cli.pace``."""

from __future__ import annotations

from dataclasses import dataclass

from cli import pace
from cli.batch_object import Batch

__all__ = ["Meter", "Progress"]

#: The states whose counts come from calls.
_RUNNING = ("in_progress", "finalizing", "completed")


@dataclass(frozen=True, slots=True)
class Progress:
    """A batch at one moment. Rates are items per second, ``None`` as long as nothing is known.

    ``per_s`` is the rate of the last half minute, ``overall_per_s`` that of the whole watch, and
    ``left_s`` the seconds that the rest takes at that pace.
    """

    batch: Batch
    per_s: float | None
    overall_per_s: float | None
    left_s: float | None

    @property
    def over(self) -> bool:
        """Whether the batch is."""
        return self.batch.over


class Meter:
    """Takes one batch's counts as they come, and knows the rates between them."""

    def __init__(self) -> None:
        self._done = pace.Meter()

    def measure(self, batch: Batch, at: float) -> Progress:
        """The progress at ``at``, seconds of a monotonic clock at which ``batch`` came."""
        if batch.status not in _RUNNING:
            # While its file is looked at nothing can be done. With a cancel or an expiry thousands
            # fail at once that were never called: no rate either.
            return Progress(batch, *pace.UNKNOWN)
        left = batch.total - batch.done if batch.status == "in_progress" else 0
        return Progress(batch, *self._done.measure(batch.done, left, at))
