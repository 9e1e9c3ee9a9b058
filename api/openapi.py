"""The OpenAPI document, made from the models that validate and the table of error statuses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import cache

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.access import OPEN
from api.contract import ErrorAnswer
from api.operation import Operation
from api.operations import OPERATIONS
from api.parameters import RETRY_AFTER
from chat.errors import ChatError, ClientLimited, Forbidden, InvalidRequest, Unauthorized
from chat.types import JSON

__all__ = ["OPERATIONS", "Operation", "document"]

_REF = "#/components/schemas/{model}"
_JSON = "application/json"


@cache
def document(version: str) -> JSON:
    """The OpenAPI 3.1 document of this version."""
    schemas, definitions = _schemas()
    paths: dict[str, JSON] = defaultdict(dict)
    for operation in OPERATIONS:
        paths[operation.path][operation.method] = _operation(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "chatd",
            "version": version,
            "description": "Chat over one queue for local and remote models. "
            "Every response has an X-Request-Id.",
        },
        "paths": dict(paths),
        "components": {
            "schemas": definitions,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "as `chatd keys new` makes it; without any, none is asked for",
                }
            },
        },
        "security": [{"key": []}],
    }


def _schemas() -> tuple[dict[type[BaseModel], JSON], JSON]:
    """A reference for each model, and the definitions they refer to."""
    requests = {op.body for op in OPERATIONS if op.body is not None}
    answers = {
        model
        for op in OPERATIONS
        for success in op.answers.values()
        for model in success.content.values()
    }
    models = sorted(requests | answers | {ErrorAnswer}, key=lambda model: model.__name__)
    references, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template=_REF
    )
    found = {model: reference for (model, _), reference in references.items()}
    return {model: found[model] for model in models}, definitions["$defs"]


def _operation(operation: Operation, schemas: dict[type[BaseModel], JSON]) -> JSON:
    responses: dict[str, JSON] = {
        str(status): _response(
            success.description,
            {
                media_type: None if success.partial else schemas[model]
                for media_type, model in success.content.items()
            },
            success.headers,
        )
        for status, success in operation.answers.items()
    }
    told = {_JSON: schemas[ErrorAnswer]}
    codes: dict[int, list[str]] = defaultdict(list)
    everywhere: tuple[type[ChatError], ...] = (ChatError, Forbidden)
    if operation.path not in OPEN:
        everywhere += (Unauthorized, ClientLimited)
    for error in operation.errors + everywhere:
        codes[operation.statuses[error]].append(error.code)
    for status, names in sorted(codes.items()):
        headers = RETRY_AFTER if status in (429, 503) else {}
        responses[str(status)] = _response(", ".join(sorted(names)), told, headers)
    for status, headers in operation.refusals.items():
        responses[str(status)] = _response(InvalidRequest.code, told, headers)
    wire: JSON = {
        "summary": operation.summary,
        "responses": dict(sorted(responses.items())),
    }
    if operation.path in OPEN:
        wire["security"] = []
    if operation.parameters:
        wire["parameters"] = list(operation.parameters)
    if operation.body is not None:
        wire["requestBody"] = {
            "required": True,
            "content": {operation.body_type: {"schema": schemas[operation.body]}},
        }
    return wire


def _response(description: str, schemas: Mapping[str, JSON | None], headers: JSON) -> JSON:
    """A response that comes in the forms of ``schemas``, by media type."""
    response: JSON = {"description": description}
    if schemas:
        response["content"] = {
            media_type: {} if schema is None else {"schema": schema}
            for media_type, schema in schemas.items()
        }
    if headers:
        response["headers"] = headers
    return response
