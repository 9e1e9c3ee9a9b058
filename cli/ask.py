"""``chatd ask``: one chat, printed as it comes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from chat.config import load_config

# requests takes long to import, and is needed only when the command runs.
if TYPE_CHECKING:
    import requests

__all__ = ["ask"]


@click.command()
@click.argument("question")
@click.option("-m", "--model", required=True, help="Model name or tier.")
@click.option("--url", help="Base URL of chatd (default: where the configuration binds it).")
def ask(question: str, model: str, url: str | None) -> None:
    """Send QUESTION as one chat and print the answer as it comes."""
    import requests

    from cli.session import new_session

    base = (url or load_config().url).rstrip("/")
    messages = [{"role": "user", "content": question}]
    body: Any = {"model": model, "messages": messages, "stream": True}
    session = new_session(base)
    try:
        # Without a time limit, since chatd ends every call.
        reply = session.post(
            f"{base}/v1/chat", json=body, timeout=None, allow_redirects=False, stream=True
        )
        streamed = reply.headers.get("Content-Type", "").startswith("text/event-stream")
        # What is refused before its first piece is answered as JSON.
        answer: Any = None if streamed else reply.json()
    except requests.RequestException as error:
        raise click.ClickException(
            f"{base} does not answer ({type(error).__name__}); is `chatd up` running?"
        ) from error
    if streamed:
        answer = _printed(reply)
    match answer:
        case {"error": {"code": code, "message": message}}:
            raise click.ClickException(f"{code}: {message}")
        case None if streamed:
            raise click.ClickException(f"{base} broke off in its answer; ask again")
        case {"content": str(content), "provider": provider, "upstream_model": upstream_model}:
            if not streamed:
                click.echo(content)
        case _:
            raise click.ClickException(f"{base} answers, but is not chatd; look at --url")
    click.echo(
        f"[{provider} {upstream_model}, {answer['input_tokens']} + {answer['output_tokens']} "
        f"tokens, queue {answer['queue_ms']} ms, upstream {answer['latency_ms']} ms]",
        err=True,
    )


def _printed(reply: requests.Response) -> Any:
    """Print the text of a stream as it comes; its last event, ``None`` when that did not come."""
    import requests

    last = None
    try:
        for name, event in _events(reply):
            if name != "delta":
                last = event
            elif "content" in event:
                click.echo(event["content"], nl=False)
    except requests.RequestException:
        last = None
    click.echo()
    return last


def _events(reply: requests.Response) -> Iterator[tuple[str, Any]]:
    """The events of a stream in chatd's own format: name and data."""
    name = ""
    for line in reply.iter_lines():
        field, _, value = line.partition(b": ")
        if field == b"event":
            name = value.decode()
        elif field == b"data":
            yield name, json.loads(value)
