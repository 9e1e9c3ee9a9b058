"""The dataset: one sample on each line of a JSONL file, and the questions that are made of them."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Self

from pydantic import Field, StringConstraints

from chat.disk import read_json, write_json
from chat.errors import InvalidRequest
from chat.evaluations.suite import Candidate, Label, Suite
from chat.formats.chat import Body, MessageBody, MetadataKey
from chat.formats.strict_json import parse_object
from chat.formats.validation import validated
from chat.types import JSON

__all__ = ["Dataset", "Sample", "fill", "parse_sample", "question"]

#: Characters that a template may become.
_LONGEST_TEXT = 4_000_000
_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")

Variable = str | bool | int | float


class SampleBody(Body):
    """One line of a dataset."""

    id: Label = Field(
        description="a string of 1 to 128 printable characters without surrounding spaces"
    )
    prompt: Annotated[str, StringConstraints(min_length=1)] | None = Field(
        None, description="a non-empty string: the question"
    )
    messages: Annotated[list[MessageBody], Field(min_length=1)] | None = Field(
        None, description="a non-empty list of messages, in place of prompt"
    )
    expected: Any = Field(None, description="any JSON value: what the scorers compare with")
    vars: dict[MetadataKey, Variable] | None = Field(
        None, description="an object of strings, numbers, true and false, for {{names}}"
    )


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a dataset; ``number`` counts lines from 1.

    ``expected`` is ``None`` if the line has none.
    """

    number: int
    id: str
    prompt: str | None
    messages: tuple[JSON, ...] | None
    expected: Any
    vars: Mapping[str, Variable]

    @property
    def values(self) -> dict[str, str]:
        """What stands for each {{name}} of a template."""
        values = {name: _text(value) for name, value in self.vars.items()}
        own = {"id": self.id, "prompt": self.prompt, "expected": self.expected}
        return {name: _text(value) for name, value in own.items() if value is not None} | values


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@dataclass(slots=True)
class Dataset:
    """Where the samples of a file begin, and the numbers of their lines."""

    path: Path
    numbers: array[int] = field(default_factory=lambda: array("L"))
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    _stream: BinaryIO | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def sample(self, place: int) -> Sample:
        """The sample at a place, counted from 0; it was found good before."""
        if self._stream is None:
            self._stream = self.path.open("rb")
        self._stream.seek(self.offsets[place])
        return parse_sample(self.numbers[place], self._stream.readline())

    def close(self) -> None:
        """Let go of the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def save(self, index: Path) -> None:
        """Write to ``index`` where the samples begin."""
        write_json(index, {"numbers": list(self.numbers), "offsets": list(self.offsets)})

    @classmethod
    def load(cls, path: Path, index: Path) -> Self:
        """Read what ``save`` wrote. Raises ``FileNotFoundError``."""
        wire = read_json(index)
        return cls(path, array("L", wire["numbers"]), array("Q", wire["offsets"]))


def parse_sample(number: int, raw: bytes) -> Sample:
    """The sample that a line has. Raises ``InvalidRequest``."""
    try:
        body = validated(SampleBody, parse_object(raw))
    except InvalidRequest as error:
        message = error.message.replace("the body", "the line", 1)
        raise InvalidRequest(message, param=error.param) from error
    messages = body.messages
    return Sample(
        number=number,
        id=body.id,
        prompt=body.prompt,
        messages=(
            None
            if messages is None
            else tuple(message.model_dump(exclude_none=True) for message in messages)
        ),
        expected=body.expected,
        vars=body.vars or {},
    )


def fill(template: str, values: Mapping[str, str]) -> str:
    """``template`` with its {{names}} replaced; what is put in is not looked at again.

    Raises ``InvalidRequest`` for a name that ``values`` does not have, and for a text that would
    become too long.
    """
    names = _PLACEHOLDER.findall(template)
    for name in names:
        if name not in values:
            raise InvalidRequest(
                f"{{{{{name}}}}} stands in a template, but the sample has no such value; it has "
                f"{', '.join(sorted(values))}: add it to vars",
                param=f"vars.{name}",
            )
    # Looked at before it is made: a long value that stands there often needs more than there is.
    length = len(template) + sum(len(values[name]) for name in names)
    if length > _LONGEST_TEXT:
        raise InvalidRequest(
            f"a template becomes a text of {length} characters, but may have {_LONGEST_TEXT} at "
            "most; shorten the values or put them in less often",
            param="vars",
        )
    return _PLACEHOLDER.sub(lambda found: values[found[1]], template)


def question(suite: Suite, candidate: Candidate, sample: Sample) -> list[JSON]:
    """The messages that a model is sent for a sample.

    A sample's own text is a template only if it has ``vars``: questions about code have braces of
    their own. Raises ``InvalidRequest`` where sample and suite do not fit.
    """
    values = sample.values
    template = candidate.prompt or suite.prompt
    if sample.messages is not None:
        if template is not None or sample.prompt is not None:
            beside = "the suite's prompt" if template is not None else "prompt"
            raise InvalidRequest(
                f"messages stands beside {beside}, which asks the question another way; keep one "
                "of them",
                param="messages",
            )
        messages = [
            {**message, "content": fill(message["content"], values)}
            if sample.vars and isinstance(message.get("content"), str)
            else dict(message)
            for message in sample.messages
        ]
    elif template is not None:
        messages = [{"role": "user", "content": fill(template, values)}]
    elif sample.prompt is not None:
        text = fill(sample.prompt, values) if sample.vars else sample.prompt
        messages = [{"role": "user", "content": text}]
    else:
        raise InvalidRequest(
            "prompt and messages are both missing, and the suite has no prompt; give one of them",
            param="prompt",
        )
    system = suite.system if candidate.system is None else candidate.system
    if system:
        messages.insert(0, {"role": "system", "content": fill(system, values)})
    return messages
