"""Reading a whole input file before anything of it is queued: what is wrong with it, and where.

A piece at a time, so that a file of 200 MB holds up neither other batches nor the keeper.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

from chat.batches.batch import Fault
from chat.batches.lines import parse_line
from chat.disk import read_json, write_json
from chat.errors import ChatError
from chat.routing import Route

__all__ = ["MOST_FAULTS", "Index", "Routes", "scan"]

#: Faults that are told; a file with more of them is read no further.
MOST_FAULTS = 100


class Routes(Protocol):
    """What ``chat.registry.Names`` says of a model name."""

    def route(self, model: str) -> Route:
        """Where calls of a model go; raises ``ProviderNotRegistered`` and ``InvalidRequest``."""


@dataclass(slots=True)
class Index:
    """Where the lines of a file begin, and whose they are.

    Lines are counted as an editor counts them: those that are empty have a number and no entry.
    """

    numbers: array[int] = field(default_factory=lambda: array("L"))
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    owners: array[int] = field(default_factory=lambda: array("B"))
    providers: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.numbers)

    def add(self, number: int, offset: int, provider: str) -> None:
        """Enter one line."""
        if provider not in self.providers:
            self.providers.append(provider)
        self.numbers.append(number)
        self.offsets.append(offset)
        self.owners.append(self.providers.index(provider))

    def places(self, provider: str) -> list[int]:
        """The entries of one provider's lines, in the order of the file."""
        owner = self.providers.index(provider)
        return [place for place, its in enumerate(self.owners) if its == owner]

    def save(self, path: Path) -> None:
        """Write the index to a file."""
        columns = {name: list(getattr(self, name)) for name in ("numbers", "offsets", "owners")}
        write_json(path, {**columns, "providers": self.providers})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what ``save`` wrote. Raises ``FileNotFoundError``."""
        wire = read_json(path)
        return cls(
            array("L", wire["numbers"]),
            array("Q", wire["offsets"]),
            array("B", wire["owners"]),
            wire["providers"],
        )


def scan(
    path: Path,
    routes: Routes,
    *,
    index: Index,
    faults: list[Fault],
    most_lines: int,
    longest_line: int,
    max_timeout_s: float,
) -> Iterator[None]:
    """Fill ``index`` and ``faults``; yields after each line, when something else may be done.

    A file is good when ``faults`` is empty at the end.
    """
    seen: set[str] = set()
    number, offset = 0, 0
    with path.open("rb") as stream:
        while raw := stream.readline(longest_line + 1):
            number += 1
            begins, offset = offset, offset + len(raw)
            if len(raw) > longest_line:
                faults.append(
                    Fault(
                        "too_large",
                        f"the line is longer than {longest_line} bytes (body_limit)",
                        number,
                    )
                )
                while raw and not raw.endswith(b"\n"):
                    raw = stream.readline(1 << 16)
                    offset += len(raw)
            elif raw.strip():
                fault = _enter(index, seen, number, begins, raw, routes, max_timeout_s)
                if fault is not None:
                    faults.append(fault)
            if len(faults) >= MOST_FAULTS:
                return
            if len(index) > most_lines:
                faults.append(
                    Fault(
                        "too_many_lines",
                        f"the file has more than {most_lines} requests (batch_max_lines); "
                        "send it in parts",
                    )
                )
                return
            yield
    if not index.numbers and not faults:
        faults.append(Fault("empty_file", "the file has no requests; write one to each line"))


def _enter(
    index: Index,
    seen: set[str],
    number: int,
    offset: int,
    raw: bytes,
    routes: Routes,
    max_timeout_s: float,
) -> Fault | None:
    try:
        line = parse_line(number, raw, max_timeout_s=max_timeout_s)
    except ChatError as error:
        return Fault(error.code, error.message, number, error.param)
    try:
        route = routes.route(line.call.request.model)
    except ChatError as error:
        return Fault(error.code, f"body.model: {error.message}", number, "body.model")
    if line.custom_id in seen:
        return Fault(
            "duplicate_custom_id",
            f'custom_id "{line.custom_id}" stands in an earlier line too; make each one unique',
            number,
            "custom_id",
        )
    seen.add(line.custom_id)
    index.add(number, offset, route.provider)
    return None
