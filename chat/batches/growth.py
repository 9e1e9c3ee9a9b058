"""A batch whose input grows while it runs: an evaluation asks for verdicts once it has answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from chat.batches.scan import Index, Routes
from chat.errors import ChatError

__all__ = ["Growth"]

#: Stands for the provider of a line that leads nowhere; its result says why.
_NOWHERE = ""


class Growth:
    """Enters lines into an index as they are appended to the input.

    They come from chatd itself and are good. ``size`` is how many bytes of the input are on disk
    for good, since a line that a power failure takes back must not have been sent; ``None`` once
    nothing more is appended. ``all`` is true once the last line was entered.
    """

    def __init__(
        self, path: Path, index: Index, routes: Routes, size: Callable[[], int | None]
    ) -> None:
        self._path, self._index, self._routes, self._size = path, index, routes, size
        self._offset = self._number = 0
        self.at_end = self.all = False

    def read(self) -> Iterator[tuple[int, str]]:
        """The place and the provider of each line that is new.

        ``at_end`` is true once all that was there has been entered.
        """
        self.at_end = False
        # Asked first: what is appended before the seal is read after it.
        size = self._size()
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            while size is None or self._offset < size:
                raw = stream.readline()
                if not raw:
                    break
                begins, self._offset = self._offset, self._offset + len(raw)
                self._number += 1
                provider = self._provider(raw)
                self._index.add(self._number, begins, provider)
                yield len(self._index) - 1, provider
        self.at_end, self.all = True, size is None

    def _provider(self, raw: bytes) -> str:
        try:
            return self._routes.route(json.loads(raw)["body"]["model"]).provider
        except ChatError:
            return _NOWHERE
