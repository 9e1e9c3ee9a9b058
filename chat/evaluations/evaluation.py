"""An evaluation as a value: what was asked for, how far it is, and how it is shown."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Self

from chat.batches.batch import Batch, Fault, Status
from chat.evaluations.suite import Suite, read_suite
from chat.types import JSON

__all__ = ["Evaluation", "Progress"]

_TIMES = (
    "in_progress_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)


@dataclass(slots=True)
class Progress:
    """How far an evaluation is. Times are Unix seconds; ``times`` has them by the status' name.

    ``rounds`` has the batch of each round: the first asks everything, each ``retry`` what failed.
    ``models`` is as the summary has it; what is not known before the end is ``None`` until then.
    """

    status: Status = Status.VALIDATING
    times: dict[str, int] = field(default_factory=dict)
    samples: int = 0
    rounds: list[Batch] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    models: list[JSON] = field(default_factory=list)

    def to_wire(self) -> JSON:
        """JSON-ready form for the evaluation's own file."""
        return {**asdict(self), "status": self.status.value}

    @classmethod
    def from_wire(cls, wire: JSON) -> Self:
        """Read what ``to_wire`` wrote."""
        own: dict[str, Any] = {
            **wire,
            "status": Status(wire["status"]),
            "rounds": [Batch(**batch) for batch in wire["rounds"]],
            "faults": [Fault(**fault) for fault in wire["faults"]],
        }
        return cls(**own)

    @property
    def errored(self) -> int:
        """Answers and verdicts that a retry would ask for again."""
        return sum(
            model["errored"] + model["verdicts"]["total"] - model["verdicts"]["scored"]
            for model in self.models
        )


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was asked for; ``window_s`` is how long each round may take.

    ``owner`` is the name of the key it came with, if there is one.
    """

    id: str
    input_file_id: str
    suite: Suite
    window_s: int
    created_ms: int
    metadata: dict[str, str] | None = None
    owner: str = ""

    def to_wire(self) -> JSON:
        """JSON-ready form for the evaluation's own file."""
        return {
            "id": self.id,
            "input_file_id": self.input_file_id,
            "suite": self.suite.to_wire(),
            "window_s": self.window_s,
            "created_ms": self.created_ms,
            "metadata": self.metadata,
            "owner": self.owner,
        }

    @classmethod
    def from_wire(cls, wire: JSON) -> Self:
        """Read what ``to_wire`` wrote."""
        return cls(**{**wire, "suite": read_suite(wire["suite"])})

    def shown(self, progress: Progress) -> JSON:
        """The evaluation as HTTP has it."""
        models = progress.models
        faults = [asdict(fault) for fault in progress.faults]
        return {
            "id": self.id,
            "object": "evaluation",
            "name": self.suite.name,
            "description": self.suite.description,
            "status": progress.status.value,
            "errors": {"object": "list", "data": faults} if faults else None,
            "input_file_id": self.input_file_id,
            "created_at": self.created_ms // 1000,
            "expires_at": progress.rounds[-1].expires_at if progress.rounds else None,
            **{name: progress.times.get(name) for name in _TIMES},
            "round": len(progress.rounds),
            "batch_ids": [batch.id for batch in progress.rounds],
            "samples": progress.samples,
            "repeats": self.suite.repeats,
            "counts": {
                name: sum(model[name] for model in models)
                for name in ("total", "answered", "errored", "cached")
            },
            "verdicts": {
                name: sum(model["verdicts"][name] for model in models)
                for name in ("total", "scored", "unparsable", "errored")
            },
            "models": models,
            "usage": {
                "input_tokens": _sum(models, "input_tokens"),
                "output_tokens": _sum(models, "output_tokens"),
                "cost_usd": _known_sum(models, "cost_usd"),
            },
            "metadata": self.metadata,
        }


def _parts(models: list[JSON], name: str) -> list[Any]:
    """A figure of every model, that of its answers and that of the verdicts on them."""
    return [part[name] for model in models for part in (model, model["judge"])]


def _sum(models: list[JSON], name: str) -> int:
    return sum(_parts(models, name))


def _known_sum(models: list[JSON], name: str) -> float | None:
    known = [part for part in _parts(models, name) if part is not None]
    return sum(known) if known else None
