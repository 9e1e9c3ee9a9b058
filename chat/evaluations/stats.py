"""The statistics of scores from 0 to 1, in plain Python and exact where it matters."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from chat.types import JSON

__all__ = ["Paired", "mean_and_error", "paired", "percentiles", "sign_test", "wilson"]

#: The standard normal deviate of a 95 % interval.
_Z = 1.959963984540054
_SHARES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


def mean_and_error(values: Sequence[float]) -> tuple[float | None, float | None]:
    """The mean and its standard error; both are ``None`` without values, that below two.

    Repeats of one sample are no independent values: give their mean.
    """
    count = len(values)
    if not count:
        return None, None
    mean = math.fsum(values) / count
    if count == 1:
        return mean, None
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return mean, math.sqrt(variance / count)


def wilson(mean: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a mean of ``count`` scores from 0 to 1.

    It is that of a share of successes (E. B. Wilson, 1927). Scores between 0 and 1 vary less than
    successes of the same mean do, so that for them it is wide rather than narrow.
    """
    square = _Z * _Z / count
    middle = (mean + square / 2) / (1 + square)
    half = _Z * math.sqrt(mean * (1 - mean) / count + square / (4 * count)) / (1 + square)
    # At the ends the bound is the mean itself, but for the last bit.
    return (middle - half if mean > 0 else 0.0), (middle + half if mean < 1 else 1.0)


def sign_test(wins: int, losses: int) -> float:
    """The two-sided probability of a split as uneven as this, if wins and losses were a coin's."""
    count = wins + losses
    if not count:
        return 1.0
    # In logarithms: 2**-count is 0 for a double long before a dataset is large.
    half = count * math.log(2)
    tail = math.fsum(
        math.exp(math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) - half)
        for k in range(min(wins, losses) + 1)
    )
    return min(1.0, 2 * tail)


@dataclass(frozen=True, slots=True)
class Paired:
    """How ``b`` differs from ``a`` on the samples that both have; see ``paired``."""

    samples: int
    difference: float | None
    stderr: float | None
    low: float | None
    high: float | None
    wins: int
    losses: int
    ties: int
    p: float

    def to_wire(self) -> JSON:
        """JSON-ready form."""
        return asdict(self)


def paired(a: Mapping[str, float], b: Mapping[str, float], common: Collection[str]) -> Paired:
    """``b`` against ``a`` on the ``common`` samples, which both have to have.

    ``difference`` is the mean of b - a, with its 95 % interval; ``wins`` are samples where b is
    better; ``p`` is that of the sign test on wins and losses.
    """
    differences = [b[sample] - a[sample] for sample in common]
    mean, stderr = mean_and_error(differences)
    wins = sum(difference > 0 for difference in differences)
    losses = sum(difference < 0 for difference in differences)
    low = high = None
    if mean is not None and stderr is not None:
        low, high = mean - _Z * stderr, mean + _Z * stderr
    return Paired(
        len(differences),
        mean,
        stderr,
        low,
        high,
        wins,
        losses,
        len(differences) - wins - losses,
        sign_test(wins, losses),
    )


def percentiles(values: Iterable[float]) -> JSON | None:
    """p50, p95 and p99 by nearest rank: the smallest value that this share does not exceed."""
    ordered = sorted(values)
    if not ordered:
        return None
    return {
        name: ordered[max(0, math.ceil(share * len(ordered)) - 1)]
        for name, share in _SHARES.items()
    }
