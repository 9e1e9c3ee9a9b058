"""A suite file and its dataset on this machine: read, changed by options, checked.

The checks are those of chatd itself, made before anything is sent.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chat.batches.batch import Fault
from chat.errors import InvalidRequest
from chat.evaluations.dataset import Dataset
from chat.evaluations.scan import MOST_FAULTS, scan
from chat.evaluations.suite import Suite, read_suite
from chat.formats.strict_json import parse_object, shown
from chat.settings import ChatdConfig
from chat.types import JSON

__all__ = ["Changes", "Limits", "Ready", "SuiteFault", "ready"]


class SuiteFault(Exception):
    """Suite or dataset cannot be used; the message has a line for each fault, with its place."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What the command line puts in place of the file's own; ``limit`` is in samples."""

    dataset: Path | None = None
    models: tuple[str, ...] = ()
    name: str | None = None
    cache: bool = True
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What chatd takes, where it is known; it looks itself in any case."""

    calls: int = 2**31
    line: int = 2**31
    timeout_s: float = math.inf

    @classmethod
    def of(cls, config: ChatdConfig) -> Limits:
        """Those of a configuration."""
        return cls(config.batch_max_lines, config.body_limit, config.max_timeout_s)


@dataclass(frozen=True, slots=True)
class Ready:
    """A suite as it is to be sent (``wire``), and the file with its samples, which are so many."""

    wire: JSON
    suite: Suite
    dataset: Path
    samples: int

    @property
    def answers(self) -> int:
        """How many there will be."""
        return self.samples * len(self.suite.models) * self.suite.repeats


@contextmanager
def ready(path: Path, changes: Changes, limits: Limits) -> Iterator[Ready]:
    """The suite of a file with its changes. Raises ``SuiteFault`` with all that is wrong.

    Of a limited dataset a copy is made, which is there until the context ends.
    """
    wire = _changed(_read(path), changes)
    try:
        suite = read_suite(wire)
    except InvalidRequest as error:
        raise SuiteFault(f"{path}: {error.message}") from error
    whole = _dataset(path, suite, changes)
    with _beginning(whole, changes.limit) as dataset:
        yield Ready(wire, suite, dataset, _checked(dataset, str(whole), suite, limits))


def _read(path: Path) -> JSON:
    try:
        value = tomllib.loads(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise SuiteFault(
            f"{path}: is not UTF-8: byte 0x{error.object[error.start]:02x} at offset "
            f"{error.start}; save it as UTF-8"
        ) from error
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        place = f"{path}:{line[1]}" if line else str(path)
        raise SuiteFault(f"{place}: is not TOML: {error}") from error
    try:
        # TOML has dates and infinities, which no request can carry.
        return parse_object(json.dumps(value, default=_no_json).encode())
    except InvalidRequest as error:
        message = error.message.replace("the body", "the suite", 1)
        raise SuiteFault(f"{path}: {message}") from error


def _no_json(value: object) -> str:
    raise InvalidRequest(f"{value} is a date or a time, which JSON does not have; put it in quotes")


def _changed(wire: JSON, changes: Changes) -> JSON:
    wire = dict(wire)
    if changes.models:
        wire["models"] = [_entry(wire.get("models"), model) for model in changes.models]
    if changes.name is not None:
        wire["name"] = changes.name
    if not changes.cache:
        wire["cache"] = False
    if changes.dataset is not None:
        wire["dataset"] = str(changes.dataset)
    return wire


def _entry(models: object, wanted: str) -> object:
    """The suite's own entry of that name, with its settings; else a model with those of all."""
    for entry in models if isinstance(models, list) else ():
        if isinstance(entry, dict) and wanted == (entry.get("name") or entry.get("model")):
            return entry
    return wanted


def _dataset(path: Path, suite: Suite, changes: Changes) -> Path:
    if suite.dataset is None:
        raise SuiteFault(f"{path}: dataset is missing; name the file in the suite, or by --dataset")
    # A path on the command line is one from here, that of a suite one from its own folder.
    found = changes.dataset or path.parent / suite.dataset
    if not found.is_file():
        raise SuiteFault(
            f"{path}: dataset is {shown(suite.dataset)}, but {found} is no regular file; correct it"
        )
    return found


@contextmanager
def _beginning(dataset: Path, limit: int | None) -> Iterator[Path]:
    """The dataset, or a file of the same name with the first ``limit`` samples of it."""
    if limit is None:
        yield dataset
        return
    with tempfile.TemporaryDirectory(prefix="chatd-") as folder:
        part, left = Path(folder) / dataset.name, limit
        with dataset.open("rb") as lines, part.open("wb") as out:
            for raw in lines:
                # Empty lines are no samples, but count for the numbers of the others.
                out.write(raw)
                left -= bool(raw.strip())
                if not left:
                    break
        yield part


def _checked(path: Path, name: str, suite: Suite, limits: Limits) -> int:
    """The number of samples in the file at ``path``, which messages call ``name``."""
    dataset, faults = Dataset(path), list[Fault]()
    looking = scan(
        dataset,
        suite,
        faults=faults,
        most_calls=limits.calls,
        longest_line=limits.line,
        max_timeout_s=limits.timeout_s,
    )
    for _ in looking:
        pass
    if faults:
        told = [
            f"{name}: {fault.message}"
            if fault.line is None
            else f"{name}:{fault.line}: {fault.message}"
            for fault in faults
        ]
        if len(faults) >= MOST_FAULTS:
            told.append("there may be more: it was read no further")
        raise SuiteFault("\n".join(told))
    return len(dataset)
