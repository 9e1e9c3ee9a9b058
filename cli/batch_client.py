"""chatd's calls for batches, as ``chatd batch`` uses them.

They are OpenAI's Batches API (platform.openai.com/docs/api-reference/batch); what chatd adds stands
in the batch object under ``chatd``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO
from urllib.parse import quote

from chat.types import JSON
from cli.batch_object import Batch
from cli.files import FileClient

__all__ = ["BatchClient"]


class BatchClient(FileClient):
    """The calls for batches."""

    serves = "batches"

    def create(
        self, file_id: str, *, endpoint: str, window: str, metadata: Mapping[str, str], key: str
    ) -> Batch:
        """Make a batch of an uploaded file. A second call with the same ``key`` makes no second."""
        body = {
            "input_file_id": file_id,
            "endpoint": endpoint,
            "completion_window": window,
            "metadata": dict(metadata),
        }
        return self._batch("POST", "/v1/batches", json=body, headers={"Idempotency-Key": key})

    def batch(self, batch_id: str) -> Batch:
        """The batch as it is now."""
        return self._batch("GET", f"/v1/batches/{quote(batch_id, safe='')}")

    def cancel(self, batch_id: str) -> Batch:
        """Cancel it; the batch as it is after that."""
        return self._batch("POST", f"/v1/batches/{quote(batch_id, safe='')}/cancel")

    def batches(self, *, limit: int, after: str | None) -> tuple[list[Batch], bool]:
        """The newest first, those behind ``after`` if it is given, and whether there are more."""
        query = {"limit": str(limit)} | ({} if after is None else {"after": after})
        match self.call("GET", "/v1/batches", params=query):
            case {"object": "list", "data": [*listed]} as page:
                return self._parsed(listed), bool(page.get("has_more"))
        raise self.stranger()

    def download(self, file_id: str, out: BinaryIO) -> None:
        """Write the content of a file to ``out``. Raises ``CallError`` if it does not come whole.

        What ``out`` raises goes through.
        """
        self.fetch(f"/v1/files/{quote(file_id, safe='')}/content", out, file_id)

    def _batch(self, method: str, path: str, **options: Any) -> Batch:
        (batch,) = self._parsed([self.call(method, path, **options)])
        return batch

    def _parsed(self, wires: Sequence[JSON]) -> list[Batch]:
        try:
            return [Batch.from_wire(wire) for wire in wires]
        except (AttributeError, KeyError, TypeError) as error:
            raise self.stranger() from error
