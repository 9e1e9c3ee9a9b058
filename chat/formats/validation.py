"""From what pydantic found wrong to one message a person can act on.

Pydantic reports every fault it meets, once per branch of a union, in its own words. A caller is
told one: where it is, what stands there, the field's rule and the way out.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from chat.errors import InvalidRequest
from chat.formats.strict_json import place, shown

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

    from chat.types import JSON

__all__ = ["inside", "validated"]

_Path = list[str | int]

T = TypeVar("T", bound=BaseModel)

#: Pydantic's names for "an object with these fields was expected".
_NOT_AN_OBJECT = frozenset({"model_type", "model_attributes_type"})


@dataclass(frozen=True, slots=True)
class _Target:
    """The field a path leads to, and the model whose fields are known at its end."""

    field: FieldInfo | None
    field_path: _Path
    model: type[BaseModel] | None


def validated(model: type[T], value: JSON) -> T:
    """``value`` as a ``model``. Raises ``InvalidRequest`` with the most telling fault."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _rejection(error, model, value) from error


def inside(where: str, error: InvalidRequest) -> InvalidRequest:
    """The error of a part as one of the whole: ``where`` is the place that the part has there."""
    if error.param is None:
        return InvalidRequest(f"{where}: {error.message}", param=where)
    # The path of a field whose name is no identifier begins with a bracket.
    joint = "" if error.param.startswith("[") else "."
    named = error.message.startswith(error.param)
    return InvalidRequest(
        f"{where}{joint if named else ': '}{error.message}", param=f"{where}{joint}{error.param}"
    )


def _rejection(error: ValidationError, model: type[BaseModel], value: JSON) -> InvalidRequest:
    fault, path = _most_telling(error, value)
    where = place(path)
    return InvalidRequest(_message(fault["type"], path, model, value), param=where)


def _most_telling(error: ValidationError, value: JSON) -> tuple[ErrorDetails, _Path]:
    """The fault to report.

    An unknown field comes first, since a misspelt one is missing as well; else it is the first
    fault, or the deepest below it, since all branches of a union report the same value.
    """
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    located = [(fault, _path(fault, value)) for fault in faults]
    for fault, path in located:
        if fault["type"] == "extra_forbidden":
            return fault, path
    first = located[0][1]
    below = [pair for pair in located if pair[1][: len(first)] == first]
    return max(below, key=lambda pair: len(pair[1]))


def _path(fault: ErrorDetails, value: JSON) -> _Path:
    """Where the fault is in the caller's own value; pydantic's names of union branches fall out."""
    path: _Path = []
    here: Any = value
    for step in fault["loc"]:
        is_key = isinstance(here, dict) and step in here
        if is_key or (isinstance(here, list) and isinstance(step, int)):
            here = here[step]
            path.append(step)
    if fault["type"] == "missing":
        path.append(fault["loc"][-1])
    return path


def _message(kind: str, path: _Path, model: type[BaseModel], value: JSON) -> str:
    where = place(path)
    if kind == "extra_forbidden":
        return _unknown(path, model)
    target = _target(path, model)
    rule = target.field.description if target.field is not None else None
    if kind == "missing":
        return f"{where} is missing; it must be {rule}"
    found = shown(_at(path, value))
    if kind in _NOT_AN_OBJECT and target.model is not None:
        fields = ", ".join(_fields(target.model))
        return f"{where} is {found}, but must be an object with fields of {fields}"
    subject = "" if path == target.field_path else f"{place(target.field_path)} "
    way_out = "correct it"
    if target.field is not None and not target.field.is_required():
        way_out = "correct it or leave it out"
    return f"{where} is {found}, but {subject}must be {rule}; {way_out}"


def _unknown(path: _Path, model: type[BaseModel]) -> str:
    owner = _target(path[:-1], model).model or model
    known = list(_fields(owner))
    name = str(path[-1])
    nearest = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.0)[0]
    return (
        f"{place(path)} is not a known field; the nearest known one is {shown(nearest)} "
        f"(of {', '.join(known)})"
    )


def _target(path: _Path, model: type[BaseModel]) -> _Target:
    field: FieldInfo | None = None
    field_path: _Path = []
    inside: type[BaseModel] | None = model
    for position, step in enumerate(path):
        if isinstance(step, int):
            continue
        known = {} if inside is None else _fields(inside)
        if step not in known:
            break
        field = known[step]
        field_path = path[: position + 1]
        inside = _model_in(field.annotation)
    return _Target(field, field_path, inside)


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model by the names that a caller writes."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The model inside an annotation such as ``list[Model] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in get_args(annotation):
        found = _model_in(part)
        if found is not None:
            return found
    return None


def _at(path: _Path, value: Any) -> object:
    for step in path:
        value = value[step]
    return value
