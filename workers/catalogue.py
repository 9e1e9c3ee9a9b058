"""Keeping a provider's list of models fresh, beside the work and never in its way."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from chat.errors import ChatError
from chat.types import Deadline

if TYPE_CHECKING:
    from chat.catalogue import Catalogue
    from chat.providers.catalogue import ModelSource

__all__ = ["Refresher"]

_log = logging.getLogger(__name__)

#: Seconds that a provider has for all its lists.
_LIMIT_S = 15.0
#: Seconds until the next try after a failure, at the most: a local Ollama may start after chatd.
_AGAIN_S = 60.0


class Refresher:
    """Fetches the models of ``provider`` every ``every_s`` seconds in one daemon thread.

    Listing is no completion: it takes no permit and counts against no budget. While it fails the
    list from before stays where it is, and the log has one line for the first failure and one for
    the end of it.
    """

    def __init__(
        self, provider: str, source: ModelSource, catalogue: Catalogue, every_s: float
    ) -> None:
        self._provider = provider
        self._source = source
        self._catalogue = catalogue
        self._every_s = every_s
        self._fails = False
        self._told: tuple[int, int] | None = None

    def start(self, stopping: threading.Event) -> None:
        """Begin now, and go on until ``stopping``."""
        threading.Thread(target=self._run, args=(stopping,), name="models", daemon=True).start()

    def refresh(self) -> float:
        """Fetch and keep the list once; returns the seconds until that is to be done again."""
        try:
            found = self._source.fetch(Deadline.after(_LIMIT_S))
            self._catalogue.keep(self._provider, found.models, self._every_s)
        except ChatError as error:
            if not self._fails:
                _log.warning(
                    "the models of %s cannot be listed, the last list stays: %s",
                    self._provider,
                    error,
                )
        except Exception:  # noqa: BLE001 - a fault of ours must not end the thread
            _log.exception("listing the models of %s failed in an unforeseen way", self._provider)
        else:
            self._tell(len(found.models), found.left_out)
            self._fails = False
            return self._every_s
        self._fails = True
        return min(self._every_s, _AGAIN_S)

    def _tell(self, listed: int, left_out: int) -> None:
        """Log what is listed the first time, after a failure, and when its length has changed."""
        if self._fails or self._told != (listed, left_out):
            _log.info(
                "models of %s: %d listed, %d left out (too many, or no usable id)",
                self._provider,
                listed,
                left_out,
            )
        self._told = (listed, left_out)

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.wait(self.refresh()):
            pass
