"""What the streams of a load say about time: the first piece, each piece, and between pieces."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from bench.speed.generator import percentile
from bench.streams.lanes import Streamed
from bench.streams.script import Script
from bench.streams.upstream import Call

__all__ = ["Times", "late_ms", "spread"]


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds, sorted.

    ``first`` is from the request to the first piece, ``late`` from the moment at which a piece left
    the upstream to that at which the client had the last byte of it, ``gaps`` between two events.
    """

    first: Sequence[float]
    late: Sequence[float]
    gaps: Sequence[float]

    @classmethod
    def of(cls, streams: Sequence[Streamed], calls: Mapping[str, Sequence[Call]]) -> Times:
        """Those of all streams that are right."""
        first, late, gaps = [], [], []
        for streamed in streams:
            if streamed.verdict != "right":
                continue
            first.append(streamed.first_s * 1000)
            late += late_ms(streamed, calls[streamed.name][-1])
            gaps += [
                (after - before) * 1000 for (before, _), (after, _) in pairwise(streamed.arrivals)
            ]
        return cls(sorted(first), sorted(late), sorted(gaps))


def late_ms(streamed: Streamed, call: Call) -> list[float]:
    """How late each piece came, whichever event it was a part of."""
    # Where each piece ends follows from the script, whose pieces need not be those of the events.
    script = Script(name=streamed.name, pieces=len(call.sent))
    ends = list(accumulate(map(len, script.said())))
    characters = [count for _, count in streamed.arrivals]
    came = [streamed.arrivals[bisect_left(characters, end)][0] for end in ends]
    return [(at - sent) * 1000 for at, sent in zip(came, call.sent, strict=True)]


def spread(values: Sequence[float], shares: Iterable[float] = (0.5, 0.99)) -> list[float]:
    """The percentiles of sorted values."""
    ordered = list(values)
    return [percentile(ordered, share) for share in shares]
