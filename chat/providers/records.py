"""One answer that comes in records, read from its bytes to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

import urllib3.exceptions

from chat.errors import UpstreamError, UpstreamProtocolError
from chat.providers.assembly import Assembly
from chat.providers.faults import AnswerCut
from chat.providers.fields import Fields, parse_json
from chat.providers.framing import first_line
from chat.providers.limits import AnswerTooLarge, check_size, check_values
from chat.types import JSON

__all__ = ["FAULTS", "RecordReader"]

#: What reading can raise: requests lets some of urllib3's exceptions through; its own are OSErrors.
FAULTS = (OSError, urllib3.exceptions.HTTPError, AnswerTooLarge)

#: An answer in records may have so many times the bytes of a whole one, since most of them are said
#: again with each record. What is kept of it may not, nor may a single record.
_ENVELOPES = 8


class RecordReader:
    """Reads one answer into ``assembly``; ``most`` bounds its bytes.

    ``blank`` is an empty object of this answer, and stands for provider, status and key.
    ``refusal`` makes an error of a record that is one, and ``answered`` is called as soon as
    nothing of the answer is still to come.
    """

    def __init__(
        self,
        assembly: Assembly,
        blank: Fields,
        most: int,
        *,
        refusal: Callable[[JSON], UpstreamError],
        answered: Callable[[], None],
    ) -> None:
        self._assembly = assembly
        self._blank = blank
        self._most = most
        self._refusal = refusal
        self._answered = answered

    def read(self, pieces: Iterator[bytes]) -> bytes | None:
        """Read a body, as its bytes come; returns it if it is a whole answer instead.

        Raises one of ``FAULTS``, ``AnswerCut`` for a body that ends before the answer does, and
        an UpstreamError for a record that is an error, or is none.
        """
        line, begun = first_line(pieces, self._most)
        pieces = chain((begun,), pieces)
        if not self._assembly.framing.begins(line):
            return b"".join(_bounded(pieces, self._most))
        try:
            self._assemble(_bounded(pieces, self._most * _ENVELOPES))
        except (*FAULTS, UpstreamError):
            if not self._assembly.complete:
                raise
        if not self._assembly.complete:
            raise AnswerCut
        return None

    def _assemble(self, pieces: Iterator[bytes]) -> None:
        """Give the assembly each record, and wait for the end of the body."""
        assembly = self._assembly
        framing = assembly.framing(self._most)
        for text in framing.records(pieces):
            if assembly.over:
                self._take_behind(text)
                continue
            if assembly.end is not None and text.strip() == assembly.end:
                assembly.complete = assembly.over = True
            else:
                values = _object_in(text)
                if values is None and framing.broke_off:
                    return
                self._take(values)
            if assembly.over:
                self._answered()

    def _take(self, values: JSON | None) -> None:
        if values is None:
            raise UpstreamProtocolError(
                f"{self._blank.provider} sent something in the midst of its answer that is not a "
                "JSON object; try again, or choose another model",
                provider=self._blank.provider,
                upstream_status=self._blank.status,
            )
        if values.get("error"):
            raise self._refusal(values)
        self._assembly.take(self._fields(values))
        check_size(self._assembly.kept, self._most, "bytes")

    def _take_behind(self, text: bytes) -> None:
        """What comes behind the end of an answer cannot spoil it, whatever it is."""
        values = _object_in(text)
        if values is not None:
            self._assembly.take_behind(self._fields(values))

    def _fields(self, values: JSON) -> Fields:
        blank = self._blank
        return Fields(blank.provider, blank.status, values, secret=blank.secret)


def _bounded(pieces: Iterator[bytes], most: int) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        check_size(size, most, "bytes")
        yield piece


def _object_in(text: bytes) -> JSON | None:
    """The JSON object that a record is, if it is one."""
    check_values(text)
    try:
        value = parse_json(text.decode("utf-8"))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
