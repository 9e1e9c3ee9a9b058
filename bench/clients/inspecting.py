"""Inspect, the evaluator of the UK's AI Security Institute, with chatd as its model's provider.

    python -m bench.clients.inspecting URL MODEL scripted|real

It runs in the environment that ``python -m bench.clients install inspect`` makes. Each step is an
evaluation: a task, samples, a solver, a scorer, and its log.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from inspect_ai import Task
from inspect_ai import eval as run_eval
from inspect_ai.dataset import Sample
from inspect_ai.model import GenerateConfig, Model, ResponseSchema, get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import Solver, generate, use_tools
from inspect_ai.tool import Tool, tool
from inspect_ai.util import json_schema
from pydantic import BaseModel

from bench.clients.transcript import CITY, ROME, Asking, Transcript, main_of

__all__ = ["build"]

_SAMPLES = 20
#: What a streamed call has to ask for beside its stream, or no tokens are counted.
_USAGE = {"stream_options": {"include_usage": True}}


class _City(BaseModel):
    name: str
    people: int


@tool  # type: ignore[untyped-decorator]
def weather(after: str) -> Tool:
    """The tool of the second task; what it answers is the next question."""

    async def execute(city: str) -> str:
        """The temperature of a city.

        Args:
            city: Its name.

        """
        assert city == ROME["city"], city
        return after

    return execute


def _model(asking: Asking, *, stream: bool = True) -> Model:
    further: dict[str, Any] = {"stream": True} if stream else {}
    return get_model(
        f"openai-api/chatd/{asking.model}", base_url=f"{asking.url}/v1", api_key="none", **further
    )


def _config(*, stream: bool = True, **fields: Any) -> GenerateConfig:
    body = {"extra_body": _USAGE} if stream else {}
    return GenerateConfig(max_tokens=200, max_retries=0, **body, **fields)


def _evaluated(
    model: Model,
    samples: Sequence[Sample],
    solver: Solver | list[Solver],
    config: GenerateConfig,
) -> Any:
    task = Task(
        dataset=list(samples),
        solver=solver,
        scorer=includes(),
        config=config,
        fail_on_error=False,
    )
    (log,) = run_eval(task, model=model, display="none")
    return log


def _told(log: Any) -> str:
    (score,) = log.results.scores
    accuracy = score.metrics["accuracy"].value
    usage = next(iter(log.stats.model_usage.values()))
    tokens = f"{usage.input_tokens} + {usage.output_tokens} tokens"
    return f"{log.status}, {len(log.samples)} samples, accuracy {accuracy:g}, {tokens}"


def _asked(asking: Asking, *, stream: bool) -> str:
    """Each sample has an answer of its own."""
    scripts = [asking.script(text=f"The answer is {number}.") for number in range(_SAMPLES)]
    samples = [
        Sample(
            input=asking.question(script, "Say: Paris."),
            target="" if asking.real else script.whole(),
        )
        for script in scripts
    ]
    model, config = _model(asking, stream=stream), _config(stream=stream)
    log = _evaluated(model, samples, generate(), config)
    assert log.status == "success", log.error
    for script, sample in zip(scripts, log.samples, strict=True):
        asking.check(script, sample.output.completion)
    return _told(log)


def _chat(asking: Asking) -> str:
    return _asked(asking, stream=False)


def _stream(asking: Asking) -> str:
    return _asked(asking, stream=True)


def _tools(asking: Asking) -> str:
    after = asking.script(text="It is hot.")
    script = asking.script(tool={"name": "weather", "arguments": ROME})
    sample = Sample(input=script.question, target=after.whole())
    solver = [use_tools(weather(after.question)), generate()]
    log = _evaluated(_model(asking), [sample], solver, _config())
    (done,) = log.samples
    assert done.output.completion == after.whole(), done.output.completion
    return f"{_told(log)}; {len(done.messages)} messages, the last after the tool's answer"


def _json(asking: Asking) -> str:
    script = asking.script(text=CITY)
    question = asking.question(script, "Name a city and its people. Answer in JSON.")
    schema = ResponseSchema(name="city", json_schema=json_schema(_City))
    config = _config(response_schema=schema)
    log = _evaluated(_model(asking), [Sample(input=question, target="{")], generate(), config)
    (sample,) = log.samples
    return json.dumps(_City.model_validate_json(sample.output.completion).model_dump())


def _error(asking: Asking, **fields: Any) -> str:
    script = asking.script(**fields)
    sample = Sample(input=script.question, target="nothing")
    log = _evaluated(_model(asking), [sample], generate(), _config())
    (done,) = log.samples
    assert done.error is not None, done.output.completion
    told: str = done.error.message
    return told[:110].replace("\n", " ")


def _before(asking: Asking) -> str:
    return _error(asking, status=404)


def _middle(asking: Asking) -> str:
    return _error(asking, fails="error", fails_after=5)


def build(transcript: Transcript) -> None:
    """What is asked."""
    transcript.step("an evaluation, not streamed", _chat)
    transcript.step("the same, streamed", _stream)
    transcript.step("tools, streamed, and their answer", _tools, scripted=True)
    transcript.step("a JSON Schema, streamed", _json)
    transcript.step("an upstream error before the first piece", _before, scripted=True)
    transcript.step("an upstream error in mid-stream", _middle, scripted=True)


if __name__ == "__main__":
    main_of(f"inspect-ai {version('inspect-ai')}", build)
