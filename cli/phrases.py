"""The phrases in which batches and evaluations are told: spans, rates, money, errors, faults.

What comes from the server is shown without anything that a terminal would obey.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from cli.overview import plain
from cli.runs import Fault

__all__ = [
    "count",
    "created",
    "errors",
    "faults",
    "moment",
    "money",
    "pace",
    "quoted",
    "span",
    "spent",
]

#: Faults of a file that are shown.
_MOST_FAULTS = 20


def span(seconds: float) -> str:
    """``9s``, ``5m 09s``, ``2h 03m``, ``1d 04h``."""
    whole = round(seconds)
    for size, unit, part, part_unit in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // part:02}{part_unit}"
    return f"{whole}s"


def moment(at: datetime) -> str:
    """A time of UTC, to the second."""
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


def created(seconds: float) -> str:
    """A time of chatd's, in seconds of the Unix epoch."""
    return moment(datetime.fromtimestamp(seconds, UTC))


def pace(
    per_s: float | None, overall_per_s: float | None = None, left_s: float | None = None
) -> list[str]:
    """``["2.0/s", "1.9/s overall", "about 5m 09s left"]``, as far as it is known."""
    told = []
    if per_s is not None:
        told.append(_rate(per_s))
    if overall_per_s is not None:
        told.append(f"{_rate(overall_per_s)} overall")
    if left_s is not None:
        told.append(f"about {span(left_s)} left")
    return told


def _rate(per_s: float) -> str:
    """In the unit in which it is a number: a slow model does a few items an hour."""
    for unit, seconds in (("s", 1), ("min", 60)):
        if per_s * seconds >= 1 or not per_s:
            return f"{per_s * seconds:.1f}/{unit}"
    return f"{per_s * 3600:.1f}/h"


def spent(cost_usd: float | None, input_tokens: int, output_tokens: int) -> list[str]:
    """``["$0.0123", "120 + 30 tokens"]``, as far as it is known."""
    told = [] if cost_usd is None else [money(cost_usd)]
    if input_tokens or output_tokens:
        told.append(f"{input_tokens} + {output_tokens} tokens")
    return told


def money(usd: float) -> str:
    """Four digits below a dollar, two from there on."""
    if 0 < usd < 0.0001:  # noqa: PLR2004 - less than the four digits can show
        return "<$0.0001"
    return f"${usd:.2f}" if usd >= 1 else f"${usd:.4f}"


def errors(
    codes: Sequence[tuple[str, int]], most: int | None = None, *, word: str = "errors"
) -> list[str]:
    """``["errors: rate_limited 2, upstream_timeout 1"]``, or nothing."""
    told = [f"{plain(code)} {times}" for code, times in codes[:most]]
    if not told:
        return []
    rest = [f"{len(codes) - len(told)} more codes"] if len(codes) > len(told) else []
    return [f"{word}: {', '.join([*told, *rest])}"]


def faults(found: Sequence[Fault]) -> Iterable[str]:
    """Lines with the same fault are told together: what is wrong in one is often wrong in all."""
    alike: dict[tuple[str, str], list[str]] = {}
    for fault in found[:_MOST_FAULTS]:
        lines = alike.setdefault((fault.message, fault.code), [])
        lines += [] if fault.line is None else [str(fault.line)]
    for (message, code), lines in alike.items():
        place = f"{'lines' if len(lines) > 1 else 'line'} {', '.join(lines)}: " if lines else ""
        yield f"  {place}{plain(message)} ({plain(code)})"
    if len(found) > _MOST_FAULTS:
        yield f"  and {len(found) - _MOST_FAULTS} more"


def count(number: int, noun: str) -> str:
    """``1 item``, ``2 items``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def quoted(names: Iterable[str]) -> str:
    """Names in quotes: they may have commas of their own."""
    return ", ".join(f'"{name}"' for name in names)
