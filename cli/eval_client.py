"""chatd's calls for evaluations, as ``chatd eval`` uses them; see docs/evaluations.md."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO
from urllib.parse import quote

from chat.types import JSON
from cli.eval_object import Evaluation
from cli.files import FileClient

__all__ = ["EvaluationClient"]

_PATH = "/v1/evaluations"


class EvaluationClient(FileClient):
    """The calls for evaluations."""

    serves = "evaluations"

    def create(
        self, suite: JSON, file_id: str, *, metadata: Mapping[str, str], key: str
    ) -> Evaluation:
        """Start one on an uploaded dataset. A second call with the same ``key`` starts no second.

        Raises ``CallError``, as every call here does.
        """
        body = {"suite": suite, "input_file_id": file_id, "metadata": dict(metadata) or None}
        return self._evaluation("POST", _PATH, json=body, headers={"Idempotency-Key": key})

    def evaluation(self, evaluation_id: str) -> Evaluation:
        """The evaluation as it is now."""
        return self._evaluation("GET", _at(evaluation_id))

    def cancel(self, evaluation_id: str) -> Evaluation:
        """Cancel it; the evaluation as it is after that."""
        return self._evaluation("POST", f"{_at(evaluation_id)}/cancel")

    def retry(self, evaluation_id: str) -> Evaluation:
        """Have what failed asked again; the evaluation as it is after that."""
        return self._evaluation("POST", f"{_at(evaluation_id)}/retry")

    def evaluations(self, *, limit: int, after: str | None) -> tuple[list[Evaluation], bool]:
        """The newest first, those behind ``after`` if it is given, and whether there are more."""
        query = {"limit": str(limit)} | ({} if after is None else {"after": after})
        match self.call("GET", _PATH, params=query):
            case {"object": "list", "data": [*listed]} as page:
                return self._parsed(listed), bool(page.get("has_more"))
        raise self.stranger()

    def report(self, evaluation_id: str, kind: str, out: BinaryIO) -> None:
        """Write the report in the format ``kind`` to ``out``. What ``out`` raises goes through."""
        path = f"{_at(evaluation_id)}/report"
        self.fetch(path, out, f"the report of {evaluation_id}", params={"format": kind})

    def summary(self, evaluation_id: str) -> JSON:
        """Every figure of its last round."""
        out = io.BytesIO()
        self.report(evaluation_id, "json", out)
        try:
            found = json.loads(out.getvalue())
        except ValueError as error:
            raise self.stranger() from error
        match found:
            case {"evaluation": {}, "suite": {}, "models": [*_], "comparisons": [*_]}:
                return dict(found)
        raise self.stranger()

    def cache(self) -> JSON:
        """How many answers are known: ``answers``, ``bytes``, ``oldest_at``."""
        match self.call("GET", f"{_PATH}/cache"):
            case {"answers": int(), "bytes": int(), "oldest_at": int() | None} as kept:
                return kept
        raise self.stranger()

    def clear_cache(self) -> int:
        """Forget every known answer; how many there were."""
        match self.call("DELETE", f"{_PATH}/cache"):
            case {"deleted": int(deleted)}:
                return deleted
        raise self.stranger()

    def _evaluation(self, method: str, path: str, **options: Any) -> Evaluation:
        (evaluation,) = self._parsed([self.call(method, path, **options)])
        return evaluation

    def _parsed(self, wires: Sequence[JSON]) -> list[Evaluation]:
        try:
            return [Evaluation.from_wire(wire) for wire in wires]
        except (AttributeError, KeyError, TypeError) as error:
            raise self.stranger() from error


def _at(evaluation_id: str) -> str:
    return f"{_PATH}/{quote(evaluation_id, safe='')}"
