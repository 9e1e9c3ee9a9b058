"""One call of the HTTP API, as the OpenAPI document describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel

from chat.errors import ChatError
from chat.formats.errors import STATUS
from chat.types import JSON

__all__ = ["Operation", "Success"]

_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Success:
    """An answer that is not an error."""

    description: str
    #: ``None`` for an answer without a body.
    model: type[BaseModel] | None
    headers: JSON
    media_type: str = _JSON
    #: Other forms of the same, by their media types. Of a stream it is the model of an event.
    others: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    #: Whether it is a part of that, which no schema describes.
    partial: bool = False

    @property
    def content(self) -> dict[str, type[BaseModel]]:
        """The model of every form it comes in, by media type."""
        return {} if self.model is None else {self.media_type: self.model, **self.others}


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    path: str
    method: str
    summary: str
    answers: dict[int, Success]
    errors: tuple[type[ChatError], ...] = ()
    body: type[BaseModel] | None = None
    body_type: str = _JSON
    parameters: tuple[JSON, ...] = ()
    statuses: Mapping[type[ChatError], int] = field(default_factory=lambda: STATUS)
    #: Refusals by HTTP's own rules: their headers by status. The code is ``invalid_request``.
    refusals: Mapping[int, JSON] = field(default_factory=dict)
